"""Keys and values of the target, kept so that a rollback is always exact or refused.

Both caches hold rows in the order of their positions in one buffer with room to spare, so that
forgetting the newest rows is moving a number: nothing is copied, and nothing that is still needed has
been overwritten. (A ring buffer overwrites the oldest row with a row that may yet be rejected.) Sliding caches
forget the oldest rows all the same; a snapshot brings those back that a conversation may return to.

The layer caches speak the protocol that mlx-lm's layers expect: `offset`, `update_and_fetch`, `make_mask`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import mlx.core as mx

from mlx_engine.network.mlx_lm_gemma4 import create_causal_mask
from mlx_engine.protocol.errors import RollbackError

GROWTH_ROWS = 256
"""Buffers grow by this many rows: large enough to copy seldom, small enough to waste little."""
ROLLBACK_RESERVE_ROWS = 32
"""Rows beyond the window that a sliding buffer keeps: more than the longest draft and a round ahead."""

Rows = tuple[mx.array, mx.array]
"""Keys and values, each (1, kv_heads, length, head_dim)."""
Mask = mx.array | Literal["causal"] | None


@dataclass(frozen=True, slots=True)
class LayerSnapshot:
    """What brings one layer back to where it was taken."""

    oldest_frontier: int
    """How far a rollback reaches once this is restored."""
    rows: Rows | None = None
    """Copies of the rows that the layer may forget; None if it forgets none."""


class LayerCache(Protocol):
    """What one attention layer remembers."""

    offset: int
    """Tokens read so far, that is the position of the next one."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Rows:
        """Append rows; return all rows that the appended ones may attend to, themselves included."""
        ...

    def make_mask(self, rows: int, return_array: bool = False, window_size: int | None = None) -> Mask:
        """The mask for `rows` rows about to be appended, over what `update_and_fetch` will return."""
        ...

    def rollback(self, tokens: int) -> None:
        """Forget the newest `tokens`, exactly; RollbackError if that is not possible."""
        ...

    @property
    def oldest_frontier(self) -> int:
        """The earliest position that a rollback can reach."""
        ...

    def snapshot(self, frontier: int) -> LayerSnapshot:
        """A way back to `frontier`, which a rollback still reaches, for as long as none goes behind it."""
        ...

    def restore(self, frontier: int, snapshot: LayerSnapshot) -> None:
        """Be as at `frontier`, where the snapshot was taken."""
        ...

    def view(self) -> Rows:
        """The rows that a drafter may see, live and without a copy."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        ...


class FullCache:
    """Remembers every token."""

    def __init__(self) -> None:
        self.offset = 0
        self._buffer: Rows | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Rows:
        """See LayerCache."""
        end = self.offset + keys.shape[2]
        if self._buffer is None or end > self._buffer[0].shape[2]:
            self._buffer = _grown(self._buffer, self.offset, end, keys, values)
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
            raise RollbackError(f"Cannot roll back {tokens} tokens: the cache holds {self.offset}.")
        self.offset -= tokens

    @property
    def oldest_frontier(self) -> int:
        """See LayerCache."""
        return 0

    def snapshot(self, frontier: int) -> LayerSnapshot:
        """See LayerCache. Appending never touches the rows before it, so their number is enough."""
        return LayerSnapshot(0)

    def restore(self, frontier: int, snapshot: LayerSnapshot) -> None:
        """See LayerCache."""
        self.rollback(self.offset - frontier)

    def view(self) -> Rows:
        """See LayerCache."""
        return _slice(self._buffer, 0, self.offset)

    @property
    def nbytes(self) -> int:
        """See LayerCache."""
        return _nbytes(self._buffer)


class SlidingCache:
    """Remembers the last `window` tokens, and enough before them to roll back.

    Rows of positions `_first` .. `offset` lie at the front of the buffer. When it is full, the rows still
    needed move to the front of a new one.
    """

    def __init__(self, window: int) -> None:
        self.offset = 0
        self._window = window
        self._first = 0
        self._buffer: Rows | None = None

    @property
    def _kept_rows(self) -> int:
        return self._window + 1 + ROLLBACK_RESERVE_ROWS

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Rows:
        """See LayerCache."""
        start, rows = self.offset, keys.shape[2]
        first_visible = max(self._first, start - (self._window - 1))
        if rows > GROWTH_ROWS:
            return self._append_chunk(first_visible, keys, values)
        held = self._buffer[0].shape[2] if self._buffer else 0
        if start - self._first + rows > held:
            self._make_room(keys, values)
        assert self._buffer is not None
        _write(self._buffer, start - self._first, keys, values)
        self.offset = start + rows
        return _slice(self._buffer, first_visible - self._first, self.offset - self._first)

    def _append_chunk(self, first_visible: int, keys: mx.array, values: mx.array) -> Rows:
        """Append more rows than the buffer has room for; only the newest of them are kept."""
        if self._buffer is not None:
            past = _slice(self._buffer, first_visible - self._first, self.offset - self._first)
            keys, values = (mx.concatenate([old, new], axis=2) for old, new in zip(past, (keys, values)))
        self.offset = first_visible + keys.shape[2]
        self._first = max(first_visible, self.offset - self._kept_rows)
        kept = _slice((keys, values), self._first - first_visible, keys.shape[2])
        self._buffer = _grown(kept, kept[0].shape[2], self._kept_rows + GROWTH_ROWS, keys, values)
        return keys, values

    def _make_room(self, keys: mx.array, values: mx.array) -> None:
        first = max(self._first, self.offset - self._kept_rows)
        kept = None
        if self._buffer is not None:
            kept = _slice(self._buffer, first - self._first, self.offset - self._first)
        count = self.offset - first
        rows = min(count + keys.shape[2], self._kept_rows) + GROWTH_ROWS
        self._buffer, self._first = _grown(kept, count, rows, keys, values), first

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
                f"Cannot roll back {tokens} tokens: the sliding window keeps positions "
                f"{self._first} to {self.offset} and needs {self._window + 1} before the frontier."
            )
        self.offset = frontier

    @property
    def oldest_frontier(self) -> int:
        """See LayerCache."""
        return self._oldest_frontier(self._first)

    def _oldest_frontier(self, first: int) -> int:
        return first + self._window + 1 if first else 0

    def snapshot(self, frontier: int) -> LayerSnapshot:
        """See LayerCache."""
        first = max(self._first, frontier - self._kept_rows)
        keys, values = _slice(self._buffer, first - self._first, frontier - self._first)
        # A product is a copy: a slice would hold on to the whole buffer, and every write would copy that.
        return LayerSnapshot(self._oldest_frontier(first), (keys * 1, values * 1))

    def restore(self, frontier: int, snapshot: LayerSnapshot) -> None:
        """See LayerCache."""
        assert snapshot.rows is not None
        self._buffer, self.offset = snapshot.rows, frontier
        self._first = frontier - snapshot.rows[0].shape[2]

    def view(self) -> Rows:
        """The last window + 1 rows: the distance up to which assistants were trained to see."""
        first = max(self._first, self.offset - (self._window + 1))
        return _slice(self._buffer, first - self._first, self.offset - self._first)

    @property
    def nbytes(self) -> int:
        """See LayerCache."""
        return _nbytes(self._buffer)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What brings a target's caches back to a frontier."""

    frontier: int
    layers: tuple[LayerSnapshot, ...]

    @property
    def oldest_frontier(self) -> int:
        """How far a rollback reaches once this is restored."""
        return max(layer.oldest_frontier for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return sum(_nbytes(layer.rows) for layer in self.layers)


class TargetCache:
    """One cache per layer that owns keys and values, rolled back together."""

    def __init__(self, layers: Sequence[LayerCache], last_of_type: dict[str, int]) -> None:
        self.layers = list(layers)
        self._last_of_type = last_of_type

    @property
    def frontier(self) -> int:
        """Tokens whose keys and values are kept."""
        return self.layers[0].offset

    @property
    def oldest_frontier(self) -> int:
        """The earliest position that a rollback can reach."""
        return max(layer.oldest_frontier for layer in self.layers)

    def rollback(self, tokens: int) -> None:
        """Forget the newest `tokens` in every layer; RollbackError if one cannot."""
        if tokens:
            for layer in self.layers:
                layer.rollback(tokens)

    def snapshot(self, frontier: int) -> Snapshot:
        """A way back to `frontier`, for as long as the cache is not rolled back behind it. Evaluated.

        RollbackError if a rollback does not reach it either.
        """
        if not self.oldest_frontier <= frontier <= self.frontier:
            raise RollbackError(
                f"No snapshot can be taken at {frontier}: the cache reaches from {self.oldest_frontier} "
                f"to {self.frontier}."
            )
        layers = tuple(layer.snapshot(frontier) for layer in self.layers)
        mx.eval([layer.rows for layer in layers if layer.rows])
        return Snapshot(frontier, layers)

    def restore(self, snapshot: Snapshot) -> None:
        """Be as at the snapshot."""
        for layer, kept in zip(self.layers, snapshot.layers, strict=True):
            layer.restore(snapshot.frontier, kept)

    def shared_kv(self) -> dict[str, Rows]:
        """What the assistant attends to: the last owning layer of each type, live."""
        return {kind: self.layers[index].view() for kind, index in self._last_of_type.items()}

    def arrays(self) -> list[mx.array]:
        """Everything to be evaluated for the cache to be up to date."""
        return [array for layer in self.layers if layer.offset for array in layer.view()]


def _grown(kept: Rows | None, count: int, rows: int, keys: mx.array, values: mx.array) -> Rows:
    """Buffers of at least `rows` rows, like `keys` and `values`, that start with `count` rows of `kept`."""
    rows = -(-rows // GROWTH_ROWS) * GROWTH_ROWS
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


def _slice(buffer: Rows | None, begin: int, end: int) -> Rows:
    assert buffer is not None, "a cache is read before anything was written"
    return buffer[0][..., begin:end, :], buffer[1][..., begin:end, :]


def _nbytes(buffer: Rows | None) -> int:
    return 0 if buffer is None else buffer[0].nbytes + buffer[1].nbytes
