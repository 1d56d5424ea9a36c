"""A conversation's rows as tensors of files, and back.

The full layers' rows are stored in parts, once. Sliding layers are stored where the conversation can be continued:
at its end, and at its snapshots. Where these overlap, their rows are stored once as well.

Knows token ids and rows, but not what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlx_engine.files.chat_cache_file import CacheFacts, CacheFileError, CacheHead, NewTensor
from mlx_engine.network.kv_cache import CacheSnapshot, TargetCache
from mlx_engine.network.layer_cache import LayerCache, LayerSnapshot, Rows
from mlx_engine.network.prefix import SNAPSHOTS_KEPT, Conversation
from mlx_engine.network.target import SLIDING, Gemma4Target
from mlx_engine.text.common_prefix import common_length

DTYPES = {mx.float32: "F32", mx.bfloat16: "BF16", mx.float16: "F16"}
MOST_READ_AGAIN = 256
"""A message that is not longer is read again for another reply to it: a window more on disk would cost more."""
EARLIER_SHARE = 10
"""Points that are not needed are stored while sliding rows take at most one part in this many of the full rows'
bytes."""
Interval = tuple[int, int]
Stored = Iterator[tuple[str, bytearray]]
"""The tensors of a file, as `read_tensors` gives them."""
StoredPart = tuple[CacheHead, Stored]


@dataclass(frozen=True, slots=True)
class StoredRows:
    """A conversation, ready to be written. Its memory is shared with the caches until they go on."""

    tokens: list[int]
    spans: list[Interval]
    frontiers: list[Interval]
    full: list[NewTensor]
    """Keys and values of the full layers, of all tokens."""
    sliding: list[NewTensor]
    """Of the sliding layers, by span."""
    readings: list[int]
    """Of each token; see PrefixCache."""

    @property
    def size_bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.size_bytes for tensor in (*self.full, *self.sliding))


def rows_to_store(conversation: Conversation) -> StoredRows:
    """What the files need of a conversation. Waits for the device."""
    cache = conversation.cache
    frontier = cache.frontier
    earlier = [snapshot for snapshot in conversation.snapshots if snapshot.frontier < frontier]
    points = _worth_storing(cache, [*earlier, cache.snapshot(frontier)])
    intervals = _intervals(points)
    spans = joined(intervals)
    full: list[NewTensor] = []
    sliding: list[NewTensor] = []
    for index, layer in enumerate(cache.layers):
        if points[-1].layers[index].rows is None:
            full += _tensors(str(index), [layer.view()])
            continue
        for number, span in enumerate(spans):
            parts = list(_parts(span, points, intervals, index))
            sliding += _tensors(f"{index}.{number}", parts)
    readings = list(conversation.readings)
    return StoredRows(conversation.tokens[:frontier], spans, intervals, full, sliding, readings)


def _sliding_rows(point: CacheSnapshot) -> int:
    return next((layer.rows[0].shape[2] for layer in point.layers if layer.rows), 0)


def _intervals(points: Sequence[CacheSnapshot]) -> list[Interval]:
    return [(point.frontier - _sliding_rows(point), point.frontier) for point in points]


def _worth_storing(cache: TargetCache, points: Sequence[CacheSnapshot]) -> list[CacheSnapshot]:
    """Those that the next prompt needs, and others that cost little. points: in order, the last one is the end."""
    full = [layer.view() for layer, kept in zip(cache.layers, points[-1].layers) if kept.rows is None]
    room_bytes = sum(part.nbytes for both in full for part in both) // EARLIER_SHARE
    row_bytes = points[-1].nbytes // max(1, _sliding_rows(points[-1]))
    chosen: list[CacheSnapshot] = []
    stored_rows = 0
    for rank, point in enumerate(_by_need(points)):
        rows = sum(end - begin for begin, end in joined(_intervals([*chosen, point])))
        if rank < _needed(points) or rows == stored_rows or rows * row_bytes <= room_bytes:
            chosen.append(point)
            stored_rows = rows
    return sorted(chosen, key=lambda point: point.frontier)


def _by_need(points: Sequence[CacheSnapshot]) -> list[CacheSnapshot]:
    """The end, where the last message begins, where the model's turn begins, and then the latest first."""
    *earlier, end = points
    turn = earlier[-SNAPSHOTS_KEPT:]
    return [end, *turn, *reversed(earlier[:-SNAPSHOTS_KEPT])]


def _needed(points: Sequence[CacheSnapshot]) -> int:
    """How many of them, by need: the end to go on from, and one to change the last message or the reply to it; for
    the reply another one, if the message is long."""
    turn = points[-1 - SNAPSHOTS_KEPT : -1]
    is_long = len(turn) > 1 and turn[-1].frontier - turn[0].frontier > MOST_READ_AGAIN
    return 3 if is_long else 2


def joined(intervals: Sequence[Interval]) -> list[Interval]:
    """What the intervals cover, in order and apart from each other."""
    spans: list[Interval] = []
    for begin, end in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if spans and begin <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], end)
        else:
            spans.append((begin, end))
    return spans


def _parts(
    span: Interval, points: Sequence[CacheSnapshot], intervals: Sequence[Interval], index: int
) -> Iterator[Rows]:
    """The rows of a span in one layer, from one snapshot after another."""
    position = span[0]
    for (begin, end), point in sorted(zip(intervals, points), key=lambda each: each[0]):
        rows = point.layers[index].rows
        if rows is not None and begin <= position < end <= span[1]:
            yield rows[0][..., position - begin :, :], rows[1][..., position - begin :, :]
            position = end


def _tensors(name: str, parts: Sequence[Rows]) -> Iterator[NewTensor]:
    for kind, arrays in zip(("keys", "values"), zip(*parts)):
        batch, heads, _, dim = arrays[0].shape
        # A slice of one head is contiguous: nothing is copied.
        pieces = [array[0, head].reshape(-1).view(mx.uint8) for head in range(heads) for array in arrays]
        mx.eval(pieces)
        shape = (batch, heads, sum(array.shape[2] for array in arrays), dim)
        yield NewTensor(f"{name}.{kind}", DTYPES[arrays[0].dtype], shape, [memoryview(piece) for piece in pieces])


def reach(facts: CacheFacts, prompt: Sequence[int], window: int) -> int:
    """How many tokens of a prompt a stored conversation spares; as PrefixCache.reach for the one in memory."""
    shared = min(common_length(facts.tokens, prompt), len(prompt) - 2)
    points = [(begin + window + 1 if begin else 0, end) for begin, end in facts.frontiers]
    return max((min(shared, end) for oldest, end in points if oldest <= shared), default=0)


def read_conversation(
    head: CacheHead, stored: Stored, parts: Iterable[StoredPart], target: Gemma4Target
) -> Conversation:
    """The conversation of a chat, tensor by tensor. Raises CacheFileError if it is not one of this target."""
    facts, cache = head.facts, target.new_cache()
    check_facts(facts, target)
    layers = list(zip(cache.layers, target.owned_types, target.row_shapes))
    points: list[list[LayerSnapshot]] = [[] for _ in facts.frontiers[:-1]]
    reader = _Reader(head, stored, target.dtype)
    for index, (layer, kind, row) in enumerate(layers):
        snapshots = [LayerSnapshot(0)] * len(points)
        if kind == SLIDING:
            *snapshots, last = _sliding_layer(reader, str(index), row, facts, target)
            layer.replace([last.rows] if last.rows else [], len(facts.tokens), 0)
            mx.eval(layer.view())
        for point, snapshot in zip(points, snapshots):
            point.append(snapshot)
    reader.finish()
    full = {str(index): (layer, row) for index, (layer, kind, row) in enumerate(layers) if kind != SLIDING}
    _read_full_layers(facts, parts, full, target)
    kept = [CacheSnapshot(at, tuple(point)) for (_, at), point in zip(facts.frontiers, points)]
    return Conversation(list(facts.tokens), cache, kept)


def _sliding_layer(
    reader: _Reader, name: str, row: tuple[int, int], facts: CacheFacts, target: Gemma4Target
) -> list[LayerSnapshot]:
    """At every frontier."""
    spans = [reader.rows(f"{name}.{number}", row, end - begin) for number, (begin, end) in enumerate(facts.spans)]
    snapshots = [_snapshot(at, facts.spans, spans, target) for at in facts.frontiers]
    mx.eval([snapshot.rows for snapshot in snapshots])
    return snapshots


def _read_full_layers(
    facts: CacheFacts,
    parts: Iterable[StoredPart],
    layers: dict[str, tuple[LayerCache, tuple[int, int]]],
    target: Gemma4Target,
) -> None:
    rows: dict[str, list[Rows]] = {name: [] for name in layers}
    begin = 0
    for part, (head, stored) in zip(facts.parts, parts, strict=True):
        reader = _Reader(head, stored, target.dtype)
        for name, (_, row) in layers.items():
            rows[name].append(reader.rows(name, row, part.end - begin))
        reader.finish()
        begin = part.end
    for name, (layer, _) in layers.items():  # one by one, so that only one is in memory twice
        layer.replace(rows.pop(name), len(facts.tokens), 0)
        mx.eval(layer.view())


class _Reader:
    """Takes the tensors in the order in which `rows_to_store` lists them."""

    def __init__(self, head: CacheHead, stored: Stored, dtype: mx.Dtype) -> None:
        self._head, self._stored, self._dtype = head, stored, dtype

    def rows(self, name: str, row: tuple[int, int], count: int) -> Rows:
        """The next two tensors: keys and values of `count` rows, which have these heads and this size."""
        shape = (1, row[0], count, row[1])
        return self._next(f"{name}.keys", shape), self._next(f"{name}.values", shape)

    def _next(self, expected: str, shape: tuple[int, ...]) -> mx.array:
        tensor = self._head.tensors.get(expected)
        if tensor is None or tensor.shape != shape or tensor.dtype != DTYPES.get(self._dtype):
            raise CacheFileError(f"its tensor {expected} is not of this model")
        name, data = next(self._stored, ("", bytearray()))
        if name != expected:
            raise CacheFileError("it has other tensors than this model")
        return mx.array(memoryview(data)).view(self._dtype).reshape(shape)  # type: ignore[arg-type]

    def finish(self) -> None:
        """Nothing is left; the hash of the data is compared here."""
        if next(self._stored, None) is not None:
            raise CacheFileError("it has other tensors than this model")


def check_facts(facts: CacheFacts, target: Gemma4Target) -> None:
    """Raises CacheFileError for positions that cannot be right, and for tokens that the target does not have."""
    end, window = len(facts.tokens), target.facts.sliding_window
    if not facts.tokens or not all(0 <= token < target.facts.vocab_size for token in facts.tokens):
        raise CacheFileError("its tokens are not of this model")
    if joined(facts.spans) != facts.spans or not facts.frontiers or facts.frontiers[-1][1] != end:
        raise CacheFileError("its positions are not in order")
    ends = [at for _, at in facts.frontiers]
    if sorted(set(ends)) != ends:
        raise CacheFileError("its positions are not in order")
    part_ends = [0, *(part.end for part in facts.parts)]
    if part_ends != sorted(set(part_ends)) or part_ends[-1] != end:
        raise CacheFileError("its parts are not in order")
    if not all(0 <= token < target.facts.vocab_size for ids in facts.replies.values() for token in ids):
        raise CacheFileError("its replies are not of this model")
    for begin, at in facts.frontiers:
        is_stored = any(first <= begin and at <= last for first, last in facts.spans)
        if not (0 <= begin < at <= end and is_stored and (begin == 0 or at - begin > window)):
            raise CacheFileError("the sliding layers' rows do not reach far enough")


def _snapshot(
    interval: Interval, spans: Sequence[Interval], stored: Sequence[Rows], target: Gemma4Target
) -> LayerSnapshot:
    begin, end = interval
    (first, _), rows = next(
        (span, rows) for span, rows in zip(spans, stored) if span[0] <= begin and end <= span[1]
    )
    # Multiplying copies, as in SlidingCache.snapshot.
    keys, values = (part[..., begin - first : end - first, :] * 1 for part in rows)
    return LayerSnapshot(begin + target.facts.sliding_window + 1 if begin else 0, (keys, values))
