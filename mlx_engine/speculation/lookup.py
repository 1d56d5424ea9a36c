"""Prompt lookup: drafts what followed the last time that the text went like this. Needs no weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import mlx.core as mx

from mlx_engine.network.checkpoint import OnRead
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.speculation.drafter import DraftedTarget, DrafterSource, Frontier
from mlx_engine.speculation.sampling import Distribution, Sampler

RUN_LENGTHS = (4, 3, 2)
"""How many of the last tokens must recur, tried in this order. Longer runs predict better; a single token
recurs too often to predict anything."""


class LookupDrafter:
    """A `Drafter` that proposes what followed the latest earlier occurrence of the last few tokens."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._next_position: dict[tuple[int, ...], int] = {}
        """Run of tokens -> the position after its latest occurrence."""

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        """Forget the conversation so far unless the prompt continues it."""
        if list(prompt[: len(self._tokens)]) != self._tokens:
            self._tokens, self._next_position = [], {}
        return iter(())

    def available_tokens(self, committed: Sequence[int], limit: int) -> int:
        """See Drafter."""
        return len(self._continuation(committed, limit))

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. A point mass at each token, whatever the sampler: there are no logits to draw from."""
        return Distribution(mx.array(self._continuation(committed, length), dtype=mx.int32), None)

    def rollback(self, rejected: int) -> None:
        """Nothing to forget: only committed tokens are indexed."""

    def _continuation(self, committed: Sequence[int], length: int) -> list[int]:
        """`length` tokens, or none where no run recurs."""
        self._index(committed)
        for run_length in RUN_LENGTHS:
            position = self._next_position.get(tuple(committed[-run_length:]))
            if position is not None:
                return _repeat_from(committed, position, length)
        return []

    def _index(self, committed: Sequence[int]) -> None:
        """Index each run before the last token. The newest run has no continuation yet."""
        for position in range(max(1, len(self._tokens)), len(committed)):
            for run_length in RUN_LENGTHS:
                if run_length <= position:
                    self._next_position[tuple(committed[position - run_length : position])] = position
        self._tokens.extend(committed[len(self._tokens) :])


def _repeat_from(committed: Sequence[int], position: int, length: int) -> list[int]:
    """`length` tokens from `position` on; past the end they start over, as a text that repeats itself does."""
    period = len(committed) - position
    return [committed[position + index % period] for index in range(length)]


def load(source: DrafterSource, target: DraftedTarget, on_read: OnRead) -> LookupDrafter:
    """See LoadDrafter."""
    return LookupDrafter()
