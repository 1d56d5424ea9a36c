"""A fixed draft length, and its bursts of plain rounds."""

from __future__ import annotations

import pytest

from mlx_engine.protocol.errors import RequestError
from mlx_engine.speculation.draft_choice import (
    BURST_EVERY_ROUNDS,
    BURST_ROUNDS,
    FIRST_BURST_AFTER_ROUNDS,
    DraftPolicy,
    FixedLength,
)
from tests.mlx_engine.speculation.drafting_simulator import next_length, round_facts


def lengths_of(policy: DraftPolicy, rounds: int) -> list[int]:
    lengths = []
    for _ in range(rounds):
        lengths.append(next_length(policy))
        policy.observe(round_facts(lengths[-1], 0, False), 0.03)
    return lengths


def test_a_fixed_length_is_kept_but_for_bursts_of_plain_rounds() -> None:
    lengths = lengths_of(FixedLength(5), 520)
    assert set(lengths) == {0, 5}
    assert lengths[8:14] == [0] * 6
    assert lengths.count(0) == 12
    with pytest.raises(RequestError, match="17"):
        FixedLength(17)


def test_a_fixed_length_makes_bursts_of_plain_rounds() -> None:
    policy, lengths = FixedLength(4), []
    for _ in range(FIRST_BURST_AFTER_ROUNDS + 2 * BURST_EVERY_ROUNDS):
        lengths.append(next_length(policy))
        policy.observe(round_facts(lengths[-1], 0, False), 0.1)
    assert lengths.count(0) == 2 * BURST_ROUNDS
    assert set(lengths) == {0, 4}
    assert lengths[FIRST_BURST_AFTER_ROUNDS : FIRST_BURST_AFTER_ROUNDS + BURST_ROUNDS] == [0] * BURST_ROUNDS


def test_asking_for_the_length_changes_nothing() -> None:
    policy = FixedLength(3)
    assert [next_length(policy) for _ in range(100)] == [3] * 100


@pytest.mark.parametrize("length", [-1, 17])
def test_a_length_out_of_range_is_refused(length: int) -> None:
    with pytest.raises(RequestError, match=r"0 \(off\) to 16"):
        FixedLength(length)
