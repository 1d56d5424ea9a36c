"""Drafting changes no word, greedy or coupled, past the window, in every layout."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import cycle, product
from typing import Any

import pytest

from mlx_engine.decode import DecodeOptions, prefill
from mlx_engine.protocol.events import RoundFacts
from mlx_engine.speculation.assistant_drafter import AssistantDrafter
from mlx_engine.speculation.drafter import Drafter
from mlx_engine.speculation.lookup import LookupDrafter
from mlx_engine.speculation.model_drafter import ModelDrafter
from mlx_engine.speculation.sampling import Sampler
from tests.cases import cases
from tests.fakes import tiny
from tests.mlx_engine.helpers import OracleDrafter, ScriptedControl, rounds, session_for, token_list, tokens

PROMPT = [2, *random.Random(7).choices(range(3, tiny.VOCAB), k=23)]
TOKENS = cases(120, 300)
SOME_TOKENS = 60
"""Enough to go past the window."""
TEMPERATURES = (0.3, 0.7, 1.0, 1.5, 3.0)
PENALISED = Sampler(temperature=0, repetition_penalty=1.3)
SETTINGS = {
    "top-k and top-p": Sampler(1.0, top_k=20, top_p=0.9, is_coupled=True),
    "min-p": Sampler(1.2, min_p=0.05, is_coupled=True),
    "penalty": Sampler(1.0, repetition_penalty=1.4, suppressed=(5, 6, 7), is_coupled=True),
    "greedy with penalty": PENALISED,
}


def assistant(layout: str) -> Drafter:
    return AssistantDrafter(tiny.assistant(layout), tiny.target(layout))


def smaller_model(layout: str) -> Drafter:
    """Another network of the same vocabulary, with a window of its own."""
    return ModelDrafter(tiny.target("e2b", sliding_window=tiny.WINDOW // 2))


def same_model(layout: str) -> Drafter:
    """Right every time, so that its cache is rolled back never and far behind often."""
    return ModelDrafter(tiny.target(layout))


def lookup(layout: str) -> Drafter:
    return LookupDrafter()


KINDS: dict[str, Callable[[str], Drafter]] = {
    "assistant": assistant,
    "smaller model": smaller_model,
    "same model": same_model,
    "lookup": lookup,
}


def in_layouts(each: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Each case with a layout before it: with one of them, the next for the next case, or with all."""
    pairs = cases(zip(cycle(tiny.LAYOUTS), each), product(tiny.LAYOUTS, each))
    return [(layout, *(case if isinstance(case, tuple) else (case,))) for layout, case in pairs]


@cache
def plain(layout: str) -> list[int]:
    reply = tokens(rounds(tiny.target(layout), None, PROMPT, TOKENS, 0))
    assert len(reply) == TOKENS
    assert len(set(reply)) > 8, "a reply that repeats itself would prove little"
    return reply


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "length"), in_layouts([7, 4, 1, 16, 2]))
@pytest.mark.sampled(2)
def test_with_the_assistant(layout: str, length: int) -> None:
    assert tokens(rounds(tiny.target(layout), assistant(layout), PROMPT, TOKENS, length)) == plain(layout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "kind", "length"),
    in_layouts(
        [
            ("same model", 16),
            ("smaller model", 1),
            ("same model", 5),
            ("smaller model", 3),
            ("lookup", 2),
            ("lookup", 16),
        ]
    ),
)
def test_with_the_other_kinds(layout: str, kind: str, length: int) -> None:
    done = rounds(tiny.target(layout), KINDS[kind](layout), PROMPT, TOKENS, length)
    assert tokens(done) == plain(layout)
    if kind == "same model":
        assert _acceptance(done) == 1.0, "its own cache is that of plain decoding, rollback or not"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "right", "least", "most", "length"),
    in_layouts(
        [
            *[(0.8, 0.2, 0.95, length) for length in range(1, 17)],
            *[(0.2, 0.01, 0.35, length) for length in (1, 3, 8, 16)],
            *[(0.0, 0.0, 0.0, length) for length in (1, 4, 16)],
        ]
    ),
)
@pytest.mark.sampled(2)
def test_with_an_oracle(layout: str, right: float, least: float, most: float, length: int) -> None:
    drafter = OracleDrafter(len(PROMPT), plain(layout), right, tiny.VOCAB)
    done = rounds(tiny.target(layout), drafter, PROMPT, TOKENS, length)
    assert tokens(done) == plain(layout)
    assert least <= _acceptance(done) <= most


@pytest.mark.slow
@pytest.mark.parametrize("layout", tiny.LAYOUTS)
@pytest.mark.sampled(2)
def test_length_changes_every_round(layout: str) -> None:
    lengths = random.Random(3).choices(range(17), k=TOKENS)
    oracle = OracleDrafter(len(PROMPT), plain(layout), 0.75, tiny.VOCAB)
    for drafter in (oracle, same_model(layout), lookup(layout)):
        assert tokens(rounds(tiny.target(layout), drafter, PROMPT, TOKENS, *lengths)) == plain(layout)


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_quickly_in_every_layout(layout: str) -> None:
    target = tiny.target(layout)
    expected = tokens(rounds(target, None, PROMPT, 48, 0))
    drafter = OracleDrafter(len(PROMPT), expected, 0.75, tiny.VOCAB)
    assert tokens(rounds(target, drafter, PROMPT, 48, 4)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "temperature"), in_layouts(TEMPERATURES))
@pytest.mark.sampled(2)
def test_coupled_one_seed_gives_the_same_words_however_they_were_drafted(layout: str, temperature: float) -> None:
    target = tiny.target(layout)
    sampler = Sampler(temperature, is_coupled=True, seed=21)
    expected = tokens(rounds(target, None, PROMPT, TOKENS, 0, sampler=sampler))
    assert len(set(expected)) > 8
    kind = list(KINDS)[TEMPERATURES.index(temperature) % len(KINDS)]
    toggled = random.Random(temperature).choices([0, 0, 1, 3, 4, 8], k=TOKENS)
    for drafter, lengths in ((assistant(layout), [4]), (KINDS[kind](layout), toggled)):
        assert tokens(rounds(target, drafter, PROMPT, TOKENS, *lengths, sampler=sampler)) == expected
    other = tokens(rounds(target, None, PROMPT, 30, 0, sampler=replace(sampler, seed=22)))
    assert other != expected[:30]


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "setting"), in_layouts(list(SETTINGS)))
@pytest.mark.sampled(2)
def test_every_setting_sees_what_plain_decoding_sees(layout: str, setting: str) -> None:
    target, sampler = tiny.target(layout), SETTINGS[setting]
    expected = tokens(rounds(target, None, PROMPT, SOME_TOKENS, 0, sampler=sampler))
    lengths = random.Random(4).choices(range(6), k=SOME_TOKENS)
    for make in KINDS.values():
        assert tokens(rounds(target, make(layout), PROMPT, SOME_TOKENS, *lengths, sampler=sampler)) == expected


def test_a_penalty_counts_the_drafts_before_a_draft() -> None:
    """The same model, drafting under the same penalty, is right every time."""
    target = tiny.target("31b")
    done = rounds(target, same_model("31b"), PROMPT, 60, 6, sampler=PENALISED)
    assert _acceptance(done) == 1.0
    assert tokens(done) != tokens(rounds(target, None, PROMPT, 60, 0)), "the penalty does something"


@pytest.mark.parametrize("layout", ["e2b", "31b"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_suppressed_is_not_drafted(layout: str, temperature: float) -> None:
    session = session_for(tiny.target(layout), assistant(layout), PROMPT)
    options = DecodeOptions(Sampler(temperature), frozenset(), 9, ScriptedControl([4]))
    frontier = prefill(session, options, lambda done_tokens: None)
    assert frontier
    (drafter,) = session.drafters

    def drafted(*suppressed: int) -> set[int]:
        sampler = Sampler(temperature, suppressed=suppressed)
        asked = session.prefix.tokens, frontier, session.prefix.cache, 4, sampler
        return set(token_list(drafter.propose(*asked).tokens))

    usual = drafted()
    assert usual.isdisjoint(drafted(*usual))


def _acceptance(done: list[RoundFacts]) -> float:
    return sum(r.accepted for r in done) / sum(r.drafted for r in done)
