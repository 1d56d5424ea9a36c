"""Moves rows between the buffers of the running conversation and the tree of the others.

Layer by layer, so that no more than one layer is in memory twice. Rows of full layers that both conversations
begin with stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx

from mlx_engine.network.kv_cache import RESUME_RESERVE_ROWS, CacheSnapshot, TargetCache, copied
from mlx_engine.network.layer_cache import LayerCache, Rows
from mlx_engine.network.prefix_tree import Node, PrefixTree
from mlx_engine.network.tapped_rows import TappedRows

SlidingRows = tuple[int, int, Callable[[int, int], list[Rows]]]
"""Positions begin to end, and what gives the rows of positions between them, by sliding layer."""


def park(
    tree: PrefixTree,
    cache: TargetCache,
    tokens: Sequence[int],
    readings: Sequence[int],
    snapshots: list[CacheSnapshot],
    now: int,
) -> None:
    """Put what `cache` has read, `tokens`, into the tree. Its full rows stay in the buffers, lent to it.

    Drafters' rows go with the last token. Empties `snapshots`, one by one as their rows are copied.
    """
    tree.extend(tokens, readings)
    for begin, end, rows in _sliding_rows(cache, snapshots):
        for node in tree.path(tokens):
            start, stop = max(begin, node.begin), min(end, node.end)
            if node.sliding is None and start < stop:
                tree.cut(tokens, start)
                part = tree.cut(tokens, stop)
                part.sliding, part.sliding_used_at = rows(start, stop), now
                mx.eval(part.sliding)
    path = tree.path(tokens)
    for node in path:
        node.used_at = now
    if path:
        path[-1].tapped = cache.tapped


def _sliding_rows(cache: TargetCache, snapshots: list[CacheSnapshot]) -> Iterator[SlidingRows]:
    layers = cache.sliding
    if not layers or not cache.frontier:
        return
    while snapshots:
        yield _rows_of(snapshots.pop())
    for layer in layers:  # room that was left in a buffer is not needed while its rows are copied
        layer.replace([layer.rows(layer.held_from, cache.frontier)], cache.frontier, 0)
        mx.eval(layer.view())
    held_from = layers[0].held_from
    yield held_from, cache.frontier, lambda begin, end: [copied(layer.rows(begin, end)) for layer in layers]


def _rows_of(snapshot: CacheSnapshot) -> SlidingRows:
    layers = [layer.rows for layer in snapshot.layers if layer.rows]
    first = snapshot.frontier - layers[0][0].shape[2]
    return (
        first,
        snapshot.frontier,
        lambda begin, end: [copied(_between(rows, begin - first, end - first)) for rows in layers],
    )


def load(
    tree: PrefixTree,
    cache: TargetCache,
    parked: Sequence[int],
    readings: Sequence[int],
    tokens: Sequence[int],
    capacity: int,
    now: int,
) -> list[int]:
    """Bring `cache` from the conversation `parked`, which is in the tree, to `tokens`, which `tree.best` named.

    readings: of the parked tokens. capacity: rows that it will soon have. Returns the readings of `tokens`.
    """
    frontier = len(tokens)
    tree.cut(tokens, frontier)
    before, after = tree.path(parked), tree.path(tokens)
    shared = sum(1 for old, new in zip(before, after) if old is new)
    kept = after[shared - 1].end if shared else 0
    leaving = [node for node in before[shared:] if node.full is None]
    can_roll_back = kept == frontier >= cache.oldest_frontier
    for index, layer in enumerate(cache.sliding):
        if can_roll_back:
            layer.rollback(layer.offset - frontier)
        else:
            begin = frontier - layer.window_rows - RESUME_RESERVE_ROWS
            parts = _sliding_rows_from(after, index, begin, now)
            layer.replace(parts, frontier, 0)
            mx.eval(layer.rows(layer.held_from, frontier) if parts else [])
    for layer in cache.full:
        _give_back(layer, leaving)
        _take_over(layer, kept, after[shared:], frontier, capacity)
    for node in after[:shared]:  # the rows in the buffers stay, also where the tree had some of an earlier reading
        node.readings = list(readings[node.begin : node.end])
    for node in after:
        node.full, node.used_at = None, now
    cache.tapped = _tapped(after[-1] if after else None, cache.tapped)
    cache.rollback_taps(frontier)
    return [reading for node in after for reading in node.readings]


def _tapped(last: Node | None, tapped: tuple[TappedRows, ...]) -> tuple[TappedRows, ...]:
    """What drafters have of the conversation that ends with `last`, or of the latest that goes on behind it."""
    if last is not None and last.tapped:
        found, last.tapped = last.tapped, ()
        return found
    others = [node for node in last.descendants() if node.tapped] if last else []
    if not others:
        return tuple(rows.anew() for rows in tapped)
    return tuple(rows.copied() for rows in max(others, key=lambda node: node.used_at).tapped)


def _give_back(layer: LayerCache, leaving: Sequence[Node]) -> None:
    for node in leaving:
        rows = copied(layer.rows(node.begin, node.end))
        mx.eval(rows)
        node.full = [*(node.full or ()), rows]


def _take_over(layer: LayerCache, kept: int, coming: Sequence[Node], frontier: int, capacity: int) -> None:
    if not coming and layer.offset - frontier <= frontier:
        layer.rollback(layer.offset - frontier)
        return
    parts = [layer.rows(0, kept)] if kept else []
    for node in coming:
        assert node.full is not None
        parts.append(node.full.pop(0))
    layer.replace(parts, frontier, capacity)
    mx.eval(layer.rows(0, frontier) if frontier else [])


def _sliding_rows_from(path: Sequence[Node], index: int, begin: int, now: int) -> list[Rows]:
    """The rows of one sliding layer from `begin` to the end of `path`; fewer if there is a gap."""
    parts: list[Rows] = []
    for node in reversed(path):
        if node.sliding is None or node.end <= begin:
            break
        rows = node.sliding[index]
        parts.insert(0, _between(rows, max(0, begin - node.begin), len(node.tokens)))
        node.sliding_used_at = now
    return parts


def _between(rows: Rows, begin: int, end: int) -> Rows:
    return rows[0][..., begin:end, :], rows[1][..., begin:end, :]
