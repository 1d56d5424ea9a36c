"""Which tokens prompt lookup drafts, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import pytest

from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.speculation.drafter import Frontier
from mlx_engine.speculation.lookup import LookupDrafter
from mlx_engine.speculation.sampling import Sampler
from tests.mlx_engine.helpers import token_list


def draft(drafter: LookupDrafter, text: Sequence[int], length: int) -> list[int]:
    """What is drafted after a text, and that it is as long as announced."""
    announced = drafter.offer(text, length).tokens
    if announced == 0:
        return []
    frontier = Frontier(mx.array([text[-1]]), mx.zeros((1, 1, 1)), None)
    proposal = drafter.propose(text, frontier, TargetCache([], {}), announced, Sampler(temperature=1))
    assert proposal.probs is None, "certain of every token"
    tokens = token_list(proposal.tokens)
    assert len(tokens) == announced
    return tokens


def after(text: Sequence[int], length: int) -> list[int]:
    return draft(LookupDrafter(), text, length)


def test_what_followed_the_last_time_is_proposed() -> None:
    assert after([1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3], 3) == [4, 5, 6]


@pytest.mark.parametrize(
    ("text", "length", "expected"),
    [
        ([7, 8, 7, 8], 5, [7, 8, 7, 8, 7]),
        ([1, 2, 3, 1, 2], 7, [3, 1, 2, 3, 1, 2, 3]),
        ([5, 5, 5], 4, [5, 5, 5, 5]),
    ],
)
def test_past_the_end_the_text_repeats_itself(text: list[int], length: int, expected: list[int]) -> None:
    assert after(text, length) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The last two tokens recur later than the last three, with another continuation.
        ([1, 2, 3, 10, 9, 2, 3, 20, 9, 1, 2, 3], 10),
        # The last three recur later than the last four.
        ([1, 2, 3, 4, 10, 9, 2, 3, 4, 20, 9, 1, 2, 3, 4], 10),
    ],
)
def test_the_longest_run_decides(text: list[int], expected: int) -> None:
    assert after(text, 1) == [expected]


def test_of_equal_runs_the_latest_decides() -> None:
    assert after([1, 2, 10, 1, 2, 20, 1, 2], 2) == [20, 1]


def test_a_single_token_or_nothing_that_recurs_proposes_nothing() -> None:
    assert after([1, 2, 3, 9, 3], 4) == []
    assert after([1, 2, 3, 4], 4) == []
    assert after([1], 4) == []


def test_text_that_is_committed_later_is_found_too() -> None:
    drafter = LookupDrafter()
    assert draft(drafter, [1, 2, 3], 2) == []
    assert draft(drafter, [1, 2, 3, 4, 9, 1, 2], 2) == [3, 4]
    assert draft(drafter, [1, 2, 3, 4, 9, 1, 2, 3, 5, 9, 2, 3], 1) == [5]


def test_another_conversation_is_forgotten_and_the_same_one_is_not() -> None:
    drafter = LookupDrafter()
    text = [1, 2, 3, 4, 9, 9]
    draft(drafter, text, 1)
    drafter.prefill([*text, 1, 2], ())
    assert draft(drafter, [*text, 1, 2], 2) == [3, 4]
    drafter.prefill([8, 8, 8, 1, 2], ())
    assert draft(drafter, [8, 8, 8, 1, 2], 2) == []


def test_another_reply_to_the_same_message_is_copied_from_it_as_the_first_one_was() -> None:
    drafter = LookupDrafter()
    text = list(range(100, 140))
    prompt = [1, *text, 2]
    offers = []
    for _ in range(2):
        drafter.prefill(prompt, ())
        offers.append([drafter.offer([*prompt, *text[:made]], 4).tokens for made in range(len(text))])
    assert offers[0] == offers[1]
    assert offers[0].count(4) == len(text) - 2


def test_nothing_is_kept_of_conversations_that_are_over() -> None:
    drafter = LookupDrafter()
    for conversation in range(20):
        drafter.prefill([1, 2, *range(1000 * conversation, 1000 * conversation + 50)], ())
    assert sum(len(runs) for runs in drafter._next_position) <= 3 * 52
