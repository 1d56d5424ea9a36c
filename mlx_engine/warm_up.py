"""The passes between loading a pair and its first reply: one of each kind that a reply makes, and no more.

They compile what the first reply would wait for, and show that the numbers are usable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import mlx.core as mx

from mlx_engine.decode import DecodeOptions, Session, begin_round, finish_round, prefill
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import Target
from mlx_engine.speculation.draft_choice import PLAIN, Choice, Offer, Offers
from mlx_engine.speculation.drafter import Drafter, Frontier
from mlx_engine.speculation.sampling import Distribution, Sampler

TARGET_PASSES = 2
SHORTEST_PROMPT_TOKENS = 2
MOST_TOKENS = 1 << 20


class WarmUp:
    """A conversation that nobody sees: the target's passes, then the drafter's."""

    def __init__(
        self, target: Target, prompt: Sequence[int], sampler: Sampler, on_pass: Callable[[int], None]
    ) -> None:
        """prompt: at least two tokens. on_pass: called before each pass of the target, with its number from 1."""
        # Only a distribution shows whether a drafter's numbers are usable; greedy drafts have none.
        sampler = replace(sampler, temperature=sampler.temperature or 1.0)
        self._options = DecodeOptions(sampler, frozenset(), MOST_TOKENS, _NoControl())
        self._on_pass = on_pass
        self._session = Session(target, [], PrefixCache(target))
        self._session.prefix.resume(prompt)
        self._frontier: Frontier | None = None
        self._passes = TARGET_PASSES

    def run_target(self) -> None:
        """Read the prompt, then make a plain round. Raises BrokenNumbersError."""
        self._on_pass(1)
        frontier = prefill(self._session, self._options, lambda done_tokens: None)
        assert frontier
        self._on_pass(2)
        self._frontier = self._round(frontier, PLAIN)

    def run_drafter(self, drafter: Drafter, draft_length: int) -> bool:
        """Make a round with drafts, after the target's passes; whether the drafter's probabilities are finite."""
        recorded = _RecordedDrafter(drafter)
        session, self._session.drafters = self._session, [recorded]
        for _ in drafter.prefill(session.prefix.tokens, ()):
            pass
        choice = Choice(0, min(draft_length, drafter.offer(session.prefix.tokens, draft_length).tokens))
        if choice.length == 0:
            return True
        self._passes += 1
        self._on_pass(self._passes)
        assert self._frontier
        self._frontier = self._round(self._frontier, choice)
        return all(
            bool(mx.all(mx.isfinite(draft.probs)).item()) for draft in recorded.drafts if draft.probs is not None
        )

    def _round(self, frontier: Frontier, choice: Choice) -> Frontier:
        pending = begin_round(self._session, self._options, frontier, choice)
        done = finish_round(self._session, self._options, pending, None, MOST_TOKENS)
        return pending.frontier(done.accepted)


class _NoControl:
    """Nobody steers a warm-up."""

    is_cancelled = False

    def next_draft(self, offers: Offers) -> Choice:
        """Not asked."""
        return PLAIN


class _RecordedDrafter:
    """A drafter whose drafts are kept."""

    def __init__(self, drafter: Drafter) -> None:
        self.name = drafter.name
        self._drafter = drafter
        self.drafts: list[Distribution] = []

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        """See Drafter."""
        return self._drafter.prefill(prompt, branch_points)

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        """See Drafter."""
        return self._drafter.offer(committed, limit)

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter."""
        self.drafts.append(self._drafter.propose(committed, frontier, cache, length, sampler))
        return self.drafts[-1]

    def rollback(self, rejected: int) -> None:
        """See Drafter."""
        self._drafter.rollback(rejected)
