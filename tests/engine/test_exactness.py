"""Greedy with drafting gives the tokens of greedy without, past the window, in every layout."""

from __future__ import annotations

import random

import pytest

from mlx_engine.decode import Committed
from mlx_engine.drafters import AssistantDrafter
from tests.engine.helpers import OracleDrafter, rounds, tokens
from tests.fakes import tiny

PROMPT = [2, *random.Random(7).choices(range(3, tiny.VOCAB), k=23)]
TOKENS = 300


@pytest.fixture(scope="module", params=tiny.LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def plain(layout: str) -> list[int]:
    reply = tokens(rounds(tiny.target(layout), None, PROMPT, TOKENS, 0))
    assert len(reply) == TOKENS
    assert len(set(reply)) > 8, "a reply that repeats itself would prove little"
    return reply


@pytest.mark.slow
@pytest.mark.parametrize("length", range(1, 17))
def test_with_the_network(layout: str, plain: list[int], length: int) -> None:
    target = tiny.target(layout)
    drafter = AssistantDrafter(tiny.assistant(layout), target)
    assert tokens(rounds(target, drafter, PROMPT, TOKENS, length)) == plain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "least", "most"),
    [(0.8, 0.2, 0.95), (0.2, 0.01, 0.35), (0.0, 0.0, 0.0)],
    ids=["right often", "right seldom", "right never"],
)
@pytest.mark.parametrize("length", range(1, 17))
def test_with_an_oracle(
    layout: str, plain: list[int], length: int, right: float, least: float, most: float
) -> None:
    drafter = OracleDrafter(len(PROMPT), plain, right, tiny.VOCAB)
    done = rounds(tiny.target(layout), drafter, PROMPT, TOKENS, length)
    assert tokens(done) == plain
    assert least <= _acceptance(done) <= most


@pytest.mark.slow
def test_length_changes_every_round(layout: str, plain: list[int]) -> None:
    drafter = OracleDrafter(len(PROMPT), plain, 0.75, tiny.VOCAB)
    lengths = random.Random(3).choices(range(17), k=TOKENS)
    assert tokens(rounds(tiny.target(layout), drafter, PROMPT, TOKENS, *lengths)) == plain


def test_quickly_in_every_layout(layout: str) -> None:
    target = tiny.target(layout)
    expected = tokens(rounds(target, None, PROMPT, 48, 0))
    drafter = OracleDrafter(len(PROMPT), expected, 0.75, tiny.VOCAB)
    assert tokens(rounds(target, drafter, PROMPT, 48, 4)) == expected


def _acceptance(done: list[Committed]) -> float:
    return sum(r.accepted for r in done) / sum(r.drafted for r in done)
