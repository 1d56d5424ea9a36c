"""A drafter that fails at any of its calls is left out, and the reply does not change."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import pytest

from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.drafter import Frontier
from mlx_engine.speculation.guarded import GuardedDrafter
from mlx_engine.speculation.sampling import Distribution, Sampler
from tests.fakes.markov import COUNTING_DRAFTER, COUNTING_PROMPT, COUNTING_REPLY, StatelessDrafter, counting_target
from tests.mlx_engine.helpers import rounds, tokens


class FailingDrafter(StatelessDrafter):
    """Right, until it fails at one of its calls."""

    def __init__(self, failing: str, after: int) -> None:
        self._failing, self._left = failing, after

    def _call(self, name: str) -> None:
        if name == self._failing:
            self._left -= 1
            if self._left < 0:
                raise RuntimeError("[matmul] no such shape")

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        self._call("prefill")
        return iter(())

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        self._call("offer")
        return Offer(limit)

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        self._call("propose")
        return COUNTING_DRAFTER.propose(committed, frontier, cache, length, sampler)

    def rollback(self, rejected: int) -> None:
        self._call("rollback")


@pytest.mark.parametrize("failing", ["prefill", "offer", "propose", "rollback"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_drafter_that_fails_is_left_out_and_changes_no_word(failing: str, after: int) -> None:
    told: list[Exception] = []
    drafter = GuardedDrafter(FailingDrafter(failing, after), told.append)
    behind: list[int] = []
    done = rounds(
        counting_target(), drafter, COUNTING_PROMPT, 7, 1,
        on_round=lambda _, s: behind.append(len(s.prefix.tokens) - s.prefix.cache.frontier),
    )  # fmt: skip
    assert set(behind[:-1]) <= {0, 1}, "one token is unread, or the next round has begun to read it"
    said = tokens(done)
    assert said == tokens(rounds(counting_target(), None, COUNTING_PROMPT, 7, 0)) == list(COUNTING_REPLY)
    assert len(told) == (0 if failing == "prefill" and after else 1)
