"""Caches against a full history: what attention sees after any reads and rollbacks is what it would have seen."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_engine.network.kv_cache import (
    ROLLBACK_RESERVE_ROWS,
    SLIDING_GROWTH_ROWS,
    CacheSnapshot,
    FullCache,
    SlidingCache,
    TargetCache,
    sharing,
)
from mlx_engine.network.layer_cache import LayerCache
from mlx_engine.protocol.errors import RollbackError
from tests.fakes import tiny

WINDOW = 8
HEADS, DIM = 2, 4


class History:
    """Everything that was read and not rolled back; attention over it by definition, in float64."""

    def __init__(self, window: int | None) -> None:
        self.rows: list[np.ndarray] = []
        self._window = window

    def attend(self, queries: np.ndarray) -> np.ndarray:
        """queries (HEADS, rows, DIM) of the newest rows."""
        keys = np.stack(self.rows, axis=1)
        count = queries.shape[1]
        out = np.zeros_like(queries)
        for row in range(count):
            last = len(self.rows) - count + row
            first = 0 if self._window is None else max(0, last - self._window + 1)
            scores = np.einsum("hd,hkd->hk", queries[:, row], keys[:, first : last + 1])
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            out[:, row] = np.einsum("hk,hkd->hd", weights, keys[:, first : last + 1])
        return out


def read(cache: LayerCache, history: History, count: int, draw: np.random.Generator) -> None:
    """Append rows to both and compare what the newest queries get."""
    rows = draw.normal(size=(HEADS, count, DIM))
    queries = draw.normal(size=(HEADS, count, DIM))
    history.rows += [rows[:, i] for i in range(count)]
    mask = cache.make_mask(count, window_size=WINDOW)
    array = mx.array(rows[None].astype(np.float32))
    keys, values = cache.update_and_fetch(array, array)
    got = mx.fast.scaled_dot_product_attention(
        mx.array(queries[None].astype(np.float32)), keys, values, scale=1.0, mask=mask
    )
    np.testing.assert_allclose(got[0], history.attend(queries), atol=2e-5)


STEP = st.tuples(st.integers(1, 17), st.integers(0, 17))


@settings(max_examples=60)
@given(st.booleans(), st.lists(STEP, min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_reads_and_rollbacks_in_any_order(is_sliding: bool, steps: list[tuple[int, int]], seed: int) -> None:
    cache: LayerCache = SlidingCache(WINDOW) if is_sliding else FullCache()
    history, draw = History(WINDOW if is_sliding else None), np.random.default_rng(seed)
    for count, back in steps:
        read(cache, history, count, draw)
        back = min(back, count)
        cache.rollback(back)
        del history.rows[len(history.rows) - back :]
        assert cache.offset == len(history.rows)


@settings(max_examples=60)
@given(st.booleans(), st.lists(STEP, min_size=1, max_size=8), st.data())
def test_a_snapshot_from_further_on_leads_back_exactly(
    is_sliding: bool, steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    cache: LayerCache = SlidingCache(WINDOW) if is_sliding else FullCache()
    history, draw = History(WINDOW if is_sliding else None), np.random.default_rng(len(steps))
    for count, later in steps:
        read(cache, history, count, draw)
        frontier = data.draw(st.integers(max(1, cache.oldest_frontier), cache.offset))
        snapshot = cache.snapshot(frontier)
        read(cache, history, later + 1, draw)
        if snapshot.rows is None:
            cache.rollback(cache.offset - frontier)
        else:
            cache.replace([snapshot.rows], frontier, 0)
            assert cache.oldest_frontier == snapshot.oldest_frontier
        del history.rows[frontier:]
        assert cache.offset == frontier
        assert cache.oldest_frontier <= frontier


@pytest.mark.parametrize("later", [61, 75, 90, 190])
def test_snapshots_that_share_rows_have_them_once(later: int) -> None:
    cache = TargetCache([FullCache(), SlidingCache(WINDOW)], {})

    def read_to(position: int) -> CacheSnapshot:
        rows = mx.arange(float(cache.frontier), float(position))[None, None, :, None]
        for layer in cache.layers:
            layer.update_and_fetch(rows, -rows)
        return cache.snapshot(position)

    before, after = read_to(60), read_to(later)
    for own, shared in zip((before, after), sharing(before, after), strict=True):
        assert (shared.frontier, shared.oldest_frontier) == (own.frontier, own.oldest_frontier)
        for one, other in zip(own.layers, shared.layers):
            assert (one.rows is None) == (other.rows is None)
            for mine, theirs in zip(one.rows or (), other.rows or ()):
                assert mx.array_equal(mine, theirs)


def test_a_snapshot_out_of_reach_is_refused() -> None:
    target = tiny.target("31b")
    cache = target.new_cache()
    target.forward(mx.ones((1, 400), mx.int32), cache)
    for frontier in (cache.oldest_frontier - 1, 401):
        with pytest.raises(RollbackError, match=f"Cannot take a snapshot at {frontier}"):
            cache.snapshot(frontier)


@pytest.mark.parametrize("kind", [FullCache, lambda: SlidingCache(WINDOW)], ids=["full", "sliding"])
@pytest.mark.parametrize("start", [0, 1, 5, 7, 8, 9, 15, 16, 17, 300])
@pytest.mark.parametrize("length", range(17))
def test_every_rollback_across_the_window_edge(kind: type[LayerCache], start: int, length: int) -> None:
    cache = kind()
    is_sliding = isinstance(cache, SlidingCache)
    history, draw = History(WINDOW if is_sliding else None), np.random.default_rng(start * 17 + length)
    if start:
        read(cache, history, start, draw)
    for back in range(length + 2):
        read(cache, history, length + 1, draw)
        cache.rollback(back)
        del history.rows[len(history.rows) - back :]
    read(cache, history, 1, draw)


@pytest.mark.parametrize("chunk", [SLIDING_GROWTH_ROWS, SLIDING_GROWTH_ROWS + 1, 3 * SLIDING_GROWTH_ROWS])
def test_prefill_chunks_beyond_the_buffer(chunk: int) -> None:
    cache, history, draw = SlidingCache(WINDOW), History(WINDOW), np.random.default_rng(chunk)
    for count in (5, chunk, 1, chunk, 17):
        read(cache, history, count, draw)
        cache.rollback(1)
        history.rows.pop()


def test_a_sliding_cache_stops_growing() -> None:
    cache, row = SlidingCache(WINDOW), mx.zeros((1, HEADS, 3, DIM))
    sizes = set()
    for _ in range(2_000):
        cache.update_and_fetch(row, row)
        cache.rollback(1)
        sizes.add(cache.nbytes)
    row_bytes = 2 * HEADS * DIM * 4
    assert max(sizes) <= (WINDOW + 1 + ROLLBACK_RESERVE_ROWS + 2 * SLIDING_GROWTH_ROWS) * row_bytes


def test_the_drafter_sees_one_row_more_than_the_window() -> None:
    cache = SlidingCache(WINDOW)
    for position in range(40):
        row = mx.full((1, 1, 1, 1), position)
        cache.update_and_fetch(row, row)
    keys, _ = cache.view()
    assert keys.reshape(-1).tolist() == list(range(40 - WINDOW - 1, 40))


@pytest.mark.parametrize("kind", [FullCache, lambda: SlidingCache(WINDOW)], ids=["full", "sliding"])
def test_what_cannot_be_rolled_back_is_refused(kind: type[LayerCache]) -> None:
    cache = kind()
    rows = mx.zeros((1, HEADS, 1, DIM))
    for _ in range(1_000):
        cache.update_and_fetch(rows, rows)
    with pytest.raises(RollbackError, match="Cannot roll back 1001 tokens"):
        cache.rollback(1_001)
    with pytest.raises(RollbackError):
        cache.rollback(-1)
    assert cache.offset == 1_000, "a refused rollback changes nothing"
    if isinstance(cache, SlidingCache):
        with pytest.raises(RollbackError, match="sliding window"):
            cache.rollback(900)
    else:
        cache.rollback(900)
