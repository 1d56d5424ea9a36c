"""Caches of keys and values whose rollback is either exact or refused.

Both kinds of cache keep their rows in order of position, in one buffer with room to spare. Rolling back then only
changes a number: nothing is copied, and no row that is still needed has been overwritten. (A ring buffer would
overwrite its oldest row with one that may yet be rejected.) Sliding caches do drop their oldest rows; a snapshot
keeps those that a conversation may return to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlx_engine.network.layer_cache import LayerCache, LayerSnapshot, Mask, Rows
from mlx_engine.network.mlx_lm_gemma4 import create_causal_mask
from mlx_engine.network.tapped_rows import TappedRows
from mlx_engine.protocol.errors import RollbackError

GROWTH_ROWS = 256
"""Full buffers grow by this many rows: enough to copy seldom, few enough to waste little."""
SLIDING_GROWTH_ROWS = 64
"""Sliding buffers have room for so many: to move one window so often is nothing beside the passes in between."""
ROLLBACK_RESERVE_ROWS = 32
"""Rows that a sliding buffer keeps beyond its window: more than the longest draft and a round begun ahead."""
RESUME_RESERVE_ROWS = 8
"""The same for a place to go on from later. The text behind it may come back with its last few tokens changed."""


class FullCache:
    """Keeps every row."""

    window_rows = held_from = 0

    def __init__(self) -> None:
        self.offset = 0
        self._buffer: Rows | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Rows:
        """See LayerCache."""
        end = self.offset + keys.shape[2]
        if self._buffer is None or end > self._buffer[0].shape[2]:
            self._buffer = _grown(self._buffer, self.offset, _rounded_up(end), keys, values)
        _write(self._buffer, self.offset, keys, values)
        self.offset = end
        return self.view()

    def make_mask(self, rows: int, return_array: bool = False, window_size: int | None = None) -> Mask:
        """See LayerCache."""
        if rows == 1:
            return None
        return create_causal_mask(rows, self.offset) if return_array else "causal"

    def rollback(self, tokens: int) -> None:
        """See LayerCache."""
        if not 0 <= tokens <= self.offset:
            raise RollbackError(f"Cannot roll back {tokens} tokens: the cache has {self.offset}.")
        self.offset -= tokens

    @property
    def oldest_frontier(self) -> int:
        """See LayerCache."""
        return 0

    def snapshot(self, frontier: int) -> LayerSnapshot:
        """See LayerCache. Appending never changes earlier rows, so nothing is copied."""
        return LayerSnapshot(0)

    def view(self) -> Rows:
        """See LayerCache."""
        return _slice(self._buffer, 0, self.offset)

    def rows(self, begin: int, end: int) -> Rows:
        """See LayerCache."""
        return _slice(self._buffer, begin, end)

    def replace(self, parts: Sequence[Rows], frontier: int, capacity: int) -> None:
        """See LayerCache."""
        self._buffer = _joined(parts, max(frontier, capacity)) if parts else None
        self.offset = frontier

    @property
    def nbytes(self) -> int:
        """See LayerCache."""
        return _nbytes(self._buffer)


class SlidingCache:
    """Keeps the last `window` rows, and enough rows before them to roll back.

    The rows of positions `_oldest` to `offset` are at the front of the buffer. When it is full, the rows that are
    still needed move to the front of a new one.
    """

    def __init__(self, window: int, start: int = 0) -> None:
        """start: position of the first row that is kept; there is nothing before it."""
        self.offset = self._oldest = self._start = start
        self._window = window
        self._buffer: Rows | None = None

    @property
    def window_rows(self) -> int:
        """See LayerCache. One more than the window: assistants were trained to attend that far."""
        return self._window + 1

    @property
    def _kept_rows(self) -> int:
        return self.window_rows + ROLLBACK_RESERVE_ROWS

    @property
    def _resume_rows(self) -> int:
        return self.window_rows + RESUME_RESERVE_ROWS

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Rows:
        """See LayerCache."""
        start, rows = self.offset, keys.shape[2]
        visible_from = max(self._oldest, start - (self._window - 1))
        if rows > SLIDING_GROWTH_ROWS:
            return self._append_chunk(visible_from, keys, values)
        capacity = self._buffer[0].shape[2] if self._buffer else 0
        if start - self._oldest + rows > capacity:
            self._make_room(keys, values)
        assert self._buffer is not None
        _write(self._buffer, start - self._oldest, keys, values)
        self.offset = start + rows
        return _slice(self._buffer, visible_from - self._oldest, self.offset - self._oldest)

    def _append_chunk(self, visible_from: int, keys: mx.array, values: mx.array) -> Rows:
        """Append more rows than the buffer can take; only the newest of them are kept."""
        if self._buffer is not None:
            past = _slice(self._buffer, visible_from - self._oldest, self.offset - self._oldest)
            keys, values = (mx.concatenate([old, new], axis=2) for old, new in zip(past, (keys, values)))
        self.offset = visible_from + keys.shape[2]
        self._oldest = max(visible_from, self.offset - self._kept_rows)
        kept = _slice((keys, values), self._oldest - visible_from, keys.shape[2])
        self._buffer = _grown(kept, kept[0].shape[2], self._kept_rows + SLIDING_GROWTH_ROWS, keys, values)
        return keys, values

    def _make_room(self, keys: mx.array, values: mx.array) -> None:
        oldest = max(self._oldest, self.offset - self._kept_rows)
        kept = None
        if self._buffer is not None:
            kept = _slice(self._buffer, oldest - self._oldest, self.offset - self._oldest)
        count = self.offset - oldest
        rows = min(count + keys.shape[2], self._kept_rows) + SLIDING_GROWTH_ROWS
        self._buffer, self._oldest = _grown(kept, count, rows, keys, values), oldest

    def make_mask(self, rows: int, return_array: bool = False, window_size: int | None = None) -> Mask:
        """See LayerCache."""
        if rows == 1:
            return None
        past = min(self.offset, self._window - 1)
        if past + rows <= self._window and not return_array:
            return "causal"
        return create_causal_mask(rows, past, window_size=self._window)

    def rollback(self, tokens: int) -> None:
        """See LayerCache."""
        frontier = self.offset - tokens
        if tokens < 0 or frontier < self.oldest_frontier:
            raise RollbackError(
                f"Cannot roll back {tokens} tokens: the sliding window has positions {self._oldest} to "
                f"{self.offset} and needs {self._window + 1} of them before the frontier."
            )
        self.offset = frontier

    @property
    def oldest_frontier(self) -> int:
        """See LayerCache."""
        return self._oldest_frontier(self._oldest)

    def _oldest_frontier(self, oldest: int) -> int:
        return oldest + self._window + 1 if oldest > self._start else self._start

    def snapshot(self, frontier: int) -> LayerSnapshot:
        """See LayerCache."""
        oldest = max(self._oldest, frontier - self._resume_rows)
        return LayerSnapshot(self._oldest_frontier(oldest), copied(self.rows(oldest, frontier)))

    def view(self) -> Rows:
        """The last `window_rows` rows."""
        return self.rows(max(self._oldest, self.offset - self.window_rows), self.offset)

    def rows(self, begin: int, end: int) -> Rows:
        """See LayerCache."""
        return _slice(self._buffer, begin - self._oldest, end - self._oldest)

    def replace(self, parts: Sequence[Rows], frontier: int, capacity: int) -> None:
        """See LayerCache."""
        self._buffer = _joined(parts, 0) if parts else None
        self.offset = frontier
        self._oldest = frontier - (self._buffer[0].shape[2] if self._buffer else 0)

    def copy(self) -> SlidingCache:
        """A cache with the same rows, which goes on by itself."""
        other = SlidingCache(self._window, self._start)
        other.offset, other._oldest = self.offset, self._oldest
        other._buffer = None if self._buffer is None else copied(self._buffer)
        return other

    @property
    def held_from(self) -> int:
        """See LayerCache."""
        return max(self._oldest, self.offset - self._resume_rows)

    @property
    def nbytes(self) -> int:
        """See LayerCache."""
        return _nbytes(self._buffer)


@dataclass(frozen=True, slots=True)
class CacheSnapshot:
    """What the layers of a `TargetCache` need to go on from a frontier."""

    frontier: int
    layers: tuple[LayerSnapshot, ...]

    @property
    def oldest_frontier(self) -> int:
        """The earliest position that a rollback can reach from there."""
        return max(layer.oldest_frontier for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return sum(_nbytes(layer.rows) for layer in self.layers)


def sharing(earlier: CacheSnapshot, later: CacheSnapshot) -> tuple[CacheSnapshot, CacheSnapshot]:
    """The same two, with the rows in memory once that both have."""
    layers = [
        _sharing(one, other, later.frontier - earlier.frontier) for one, other in zip(earlier.layers, later.layers)
    ]
    one, other = zip(*layers)
    return CacheSnapshot(earlier.frontier, one), CacheSnapshot(later.frontier, other)


def _sharing(one: LayerSnapshot, other: LayerSnapshot, tokens: int) -> tuple[LayerSnapshot, LayerSnapshot]:
    """tokens: by how many the other one is further on."""
    if one.rows is None or other.rows is None:
        return one, other
    count, other_count = one.rows[0].shape[2], other.rows[0].shape[2]
    begin = count + tokens - other_count
    if not 0 <= begin < count:
        return one, other
    joined = _joined([one.rows, _slice(other.rows, count - begin, other_count)], 0)
    mx.eval(joined)
    # Slices of what is computed are views.
    shared = _slice(joined, 0, count), _slice(joined, begin, count + tokens)
    mx.eval(shared)
    return LayerSnapshot(one.oldest_frontier, shared[0]), LayerSnapshot(other.oldest_frontier, shared[1])


class TargetCache:
    """One cache per layer that owns keys and values, rolled back together."""

    def __init__(
        self,
        layers: Sequence[LayerCache],
        last_of_type: dict[str, int],
        tapped: Sequence[TappedRows] = (),
    ) -> None:
        """tapped: rows of layers that drafters tap, one per drafter. They change with the conversation."""
        self.layers = list(layers)
        self.tapped = tuple(tapped)
        self._last_of_type = last_of_type

    @property
    def frontier(self) -> int:
        """Tokens read so far."""
        return self.layers[0].offset

    @property
    def full(self) -> list[LayerCache]:
        """The layers that keep every row."""
        return [layer for layer in self.layers if not layer.window_rows]

    @property
    def sliding(self) -> list[LayerCache]:
        """The layers that drop old rows, at the same positions."""
        return [layer for layer in self.layers if layer.window_rows]

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def oldest_frontier(self) -> int:
        """The earliest position that a rollback can reach."""
        return max(layer.oldest_frontier for layer in self.layers)

    def rollback(self, tokens: int) -> None:
        """Drop the newest `tokens` in every layer. Raises RollbackError if one of them cannot."""
        if tokens:
            for layer in self.layers:
                layer.rollback(tokens)
            self.rollback_taps(self.frontier)

    def rollback_taps(self, frontier: int) -> None:
        """Drop tapped rows from this position on."""
        for rows in self.tapped:
            rows.rollback(frontier)

    def snapshot(self, frontier: int) -> CacheSnapshot:
        """A snapshot at `frontier`, evaluated. Valid until the cache is rolled back behind it.

        Raises RollbackError if a rollback could not reach `frontier`.
        """
        if not self.oldest_frontier <= frontier <= self.frontier:
            raise RollbackError(
                f"Cannot take a snapshot at {frontier}: the cache can return to positions {self.oldest_frontier} "
                f"to {self.frontier}."
            )
        layers = tuple(layer.snapshot(frontier) for layer in self.layers)
        mx.eval([layer.rows for layer in layers if layer.rows])
        return CacheSnapshot(frontier, layers)

    def shared_kv(self) -> dict[str, Rows]:
        """What an assistant attends to: by type, the rows of the last layer that has its own cache. Not copied."""
        return {kind: self.layers[index].view() for kind, index in self._last_of_type.items()}

    def arrays(self) -> list[mx.array]:
        """The arrays to evaluate to bring the cache up to date."""
        rows = [array for layer in self.layers if layer.offset for array in layer.view()]
        return rows + [array for tapped in self.tapped for array in tapped.arrays()]


def _rounded_up(rows: int) -> int:
    return -(-rows // GROWTH_ROWS) * GROWTH_ROWS


def _grown(kept: Rows | None, count: int, rows: int, keys: mx.array, values: mx.array) -> Rows:
    """Buffers of `rows` rows, shaped like `keys` and `values`, starting with `count` rows of `kept`."""
    grown = []
    for index, like in enumerate((keys, values)):
        batch, heads, _, dim = like.shape
        if kept is None or count == 0:
            grown.append(mx.zeros((batch, heads, rows, dim), like.dtype))
        else:
            room = mx.zeros((batch, heads, rows - count, dim), like.dtype)
            grown.append(mx.concatenate([kept[index][..., :count, :], room], axis=2))
    return grown[0], grown[1]


def _write(buffer: Rows, at: int, keys: mx.array, values: mx.array) -> None:
    for room, rows in zip(buffer, (keys, values)):
        room[..., at : at + rows.shape[2], :] = rows


def copied(rows: Rows) -> Rows:
    """A copy of rows. A slice would keep the whole buffer alive, and every write would then copy it."""
    return rows[0] * 1, rows[1] * 1


def _joined(parts: Sequence[Rows], capacity: int) -> Rows:
    """A new buffer with all rows, and at least `capacity` rows long."""
    if len(parts) == 1 and parts[0][0].shape[2] >= capacity:
        return copied(parts[0])
    count = sum(keys.shape[2] for keys, _ in parts)
    room = max(0, _rounded_up(capacity) - count)
    joined = []
    for like, arrays in zip(parts[0], zip(*parts)):
        batch, heads, _, dim = like.shape
        rooms = [mx.zeros((batch, heads, room, dim), like.dtype)] if room else []
        joined.append(mx.concatenate([*arrays, *rooms], axis=2))
    return joined[0], joined[1]


def _slice(buffer: Rows | None, begin: int, end: int) -> Rows:
    assert buffer is not None, "a cache is read before anything was written"
    return buffer[0][..., begin:end, :], buffer[1][..., begin:end, :]


def _nbytes(buffer: Rows | None) -> int:
    return 0 if buffer is None else buffer[0].nbytes + buffer[1].nbytes
