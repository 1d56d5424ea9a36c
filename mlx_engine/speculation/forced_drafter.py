"""Proposes what the form of a reply forces: the keys of a schema, and the signs between them. Needs no weights.

Each of these tokens is the only one that its mask allows, in the spelling that the mask asks for. So the rejection
rule accepts every draft, and a round brings the whole span and one token more for the price of a verify pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.protocol.events import FORCED, MAX_DRAFT_LENGTH
from mlx_engine.speculation.constraint import Constraint
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.drafter import Frontier
from mlx_engine.speculation.sampling import Distribution, Sampler, point_masses


class ForcedDrafter:
    """A `Drafter` for one reply, beside those of the pair."""

    name = FORCED

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint
        self._span: list[int] = []
        """What was offered last."""

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        """Nothing to read: the form is the reply's alone."""
        return iter(())

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        """See Drafter."""
        self._span = self._constraint.forced(min(limit, MAX_DRAFT_LENGTH))
        return Offer(len(self._span), [1.0] * len(self._span))

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter."""
        return point_masses(self._span[:length])

    def rollback(self, rejected: int) -> None:
        """Nothing to forget: the constraint follows committed tokens only."""
