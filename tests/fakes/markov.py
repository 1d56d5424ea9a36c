"""A target and a drafter that are tables: the next token depends on the last one, in known proportions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.layer_cache import LayerSnapshot, Mask, Rows
from mlx_engine.network.target import TargetFacts
from mlx_engine.protocol.errors import RollbackError
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.drafter import Frontier
from mlx_engine.speculation.sampling import Distribution, RandomStream, Sampler, history_after


class CountingCache:
    """A layer cache that only counts its rows."""

    def __init__(self) -> None:
        self.offset = 0

    def rollback(self, tokens: int) -> None:
        if tokens > self.offset:
            raise RollbackError("more than there is")
        self.offset -= tokens

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Rows:
        raise AssertionError("never asked")

    def make_mask(self, rows: int, return_array: bool = False, window_size: int | None = None) -> Mask:
        raise AssertionError("never asked")

    @property
    def oldest_frontier(self) -> int:
        return 0

    def snapshot(self, frontier: int) -> LayerSnapshot:
        return LayerSnapshot(0)

    def restore(self, frontier: int, snapshot: LayerSnapshot) -> None:
        self.offset = frontier

    def view(self) -> Rows:
        return mx.zeros((1, 1, 1, 1)), mx.zeros((1, 1, 1, 1))

    def rows(self, begin: int, end: int) -> Rows:
        return mx.zeros((1, 1, end - begin, 1)), mx.zeros((1, 1, end - begin, 1))

    def replace(self, parts: Sequence[Rows], frontier: int, capacity: int) -> None:
        self.offset = frontier

    @property
    def window_rows(self) -> int:
        return 0

    @property
    def held_from(self) -> int:
        return 0

    @property
    def nbytes(self) -> int:
        return 0


@dataclass
class MarkovTarget:
    """Its logits are `table[last token]`; the hidden state is the last token itself."""

    table: np.ndarray
    """(vocab, vocab) logits."""
    forwards: list[tuple[int, int]] = field(default_factory=list)
    """(position, rows) of every pass."""

    def __post_init__(self) -> None:
        self._table = mx.array(self.table.astype(np.float32))
        self.facts = TargetFacts(1, len(self.table), 1 << 20, 1 << 20, {})

    def new_cache(self) -> TargetCache:
        return TargetCache([CountingCache()], {})

    def forward(self, tokens: mx.array, cache: TargetCache) -> mx.array:
        self.forwards.append((cache.frontier, tokens.shape[1]))
        cache.layers[0].offset += tokens.shape[1]
        return tokens[..., None].astype(mx.float32)

    def read(self, tokens: mx.array, cache: TargetCache) -> mx.array:
        return self.forward(tokens, cache)[:, -1:]

    def logits(self, hidden: mx.array) -> mx.array:
        return self._table[hidden[0, :, 0].astype(mx.int32)]

    def embed(self, tokens: mx.array) -> mx.array:
        return tokens[..., None].astype(mx.float32)


class StatelessDrafter:
    """The base of drafters that keep nothing."""

    name = "fake"

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        return iter(())

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        return Offer(limit)

    def rollback(self, rejected: int) -> None:
        pass


class MarkovDrafter(StatelessDrafter):
    """Draws its drafts one by one from its own table, and declares the distribution it drew from."""

    def __init__(self, table: np.ndarray) -> None:
        self._table = mx.array(table.astype(np.float32))

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        token, seen = frontier.token, frontier.seen
        tokens, probs = [], []
        for position in range(len(committed), len(committed) + length):
            drawn = sampler.draw(self._table[token], position, RandomStream.DRAFT, seen)
            token, seen = drawn.tokens, history_after(seen, drawn.tokens)
            tokens.append(token)
            if drawn.probs is not None:
                probs.append(drawn.probs)
        return Distribution(mx.concatenate(tokens), mx.concatenate(probs) if probs else None)


class PointDrafter(StatelessDrafter):
    """Point masses: `points[last token]` follows every token."""

    def __init__(self, points: np.ndarray) -> None:
        self._points = mx.array(points.astype(np.int32))

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        token, tokens = frontier.token, []
        for _ in range(length):
            token = self._points[token]
            tokens.append(token)
        return Distribution(mx.concatenate(tokens), None)


COUNTING_VOCAB = 16
COUNTING_PROMPT = (3, 4)
COUNTING_REPLY = (5, 6, 7, 8, 9, 10, 11)


def counting_target(broken: int | None = None, value: float = np.nan) -> MarkovTarget:
    """Counts on from 4 up to 11. The logits after `broken` contain `value`."""
    table = np.zeros((COUNTING_VOCAB, COUNTING_VOCAB))
    for last, following in zip((4, *COUNTING_REPLY), COUNTING_REPLY):
        table[last, following] = 10
    if broken is not None:
        table[broken, 0] = value
    return MarkovTarget(table)


COUNTING_DRAFTER = PointDrafter(np.minimum(np.arange(COUNTING_VOCAB) + 1, COUNTING_VOCAB - 1))
"""Always right about `counting_target`."""
