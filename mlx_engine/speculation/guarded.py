"""A drafter that may fail without ending the reply."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.drafter import Drafter, Frontier
from mlx_engine.speculation.sampling import NO_DRAFT, Distribution, Sampler

NO_OFFER = Offer(0)


class GuardedDrafter:
    """Wraps a `Drafter`. After its first failure it proposes nothing, and replies go on without drafts."""

    def __init__(self, drafter: Drafter, on_failure: Callable[[Exception], None]) -> None:
        """on_failure: called once, with the error."""
        self.name = drafter.name
        self._drafter: Drafter | None = drafter
        self._on_failure = on_failure

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        """See Drafter."""
        try:
            if self._drafter:
                yield from self._drafter.prefill(prompt, branch_points)
        except Exception as error:
            self._fail(error)

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        """See Drafter. Nothing after a failure."""
        try:
            if self._drafter:
                return self._drafter.offer(committed, limit)
        except Exception as error:
            self._fail(error)
        return NO_OFFER

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. An empty draft after a failure."""
        try:
            if self._drafter:
                return self._drafter.propose(committed, frontier, cache, length, sampler)
        except Exception as error:
            self._fail(error)
        return NO_DRAFT

    def rollback(self, rejected: int) -> None:
        """See Drafter."""
        try:
            if self._drafter:
                self._drafter.rollback(rejected)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """A network from anybody's folder can fail in any way."""
        self._drafter = None
        self._on_failure(error)
