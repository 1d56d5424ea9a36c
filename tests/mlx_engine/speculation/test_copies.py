"""What copies bring beside an assistant, in replies that are known: rewriting gains, other text does not lose."""

from __future__ import annotations

from statistics import fmean

import mlx.core as mx
import pytest

from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.protocol.events import LOOKUP
from mlx_engine.speculation.adaptive_draft import AdaptiveDraft
from mlx_engine.speculation.draft_choice import PLAIN, Offer
from mlx_engine.speculation.drafter import Frontier
from mlx_engine.speculation.lookup import LookupDrafter
from tests.mlx_engine.helpers import GREEDY, token_list
from tests.mlx_engine.speculation.dictated import ASSISTANT, STORY, TASKS, DictatedReply, tokens_of, words
from tests.mlx_engine.speculation.drafting_simulator import KINDS, Hazards, fading, line, round_facts
from tests.paths import ROOT

DRAFTING = line(0.83, 0.170)
CHEAP_ROWS = [1 + 0.05 * length for length in range(17)]
DEAR_ROWS = [1 + 0.25 * length for length in range(17)]
GOOD = fading(0.95, 0.95, 0.95, then=0.93)
"""An assistant that is good at rewriting too."""
OTHER_TEXTS = ["LICENSE", "mlx_engine/decode.py", ".github/ARCHITECTURE.md"]


def assistant_alone() -> AdaptiveDraft:
    return AdaptiveDraft((ASSISTANT,), 4)


def with_copies() -> AdaptiveDraft:
    return AdaptiveDraft((ASSISTANT, LOOKUP), 4)


@pytest.mark.parametrize("hazards", [KINDS["prose"], GOOD], ids=["usual assistant", "good assistant"])
@pytest.mark.parametrize("task", TASKS)
def test_rewriting_is_faster_with_copies(task: str, hazards: Hazards) -> None:
    prompt, reply = tokens_of(*TASKS[task])
    alone, both = (DictatedReply(prompt, reply, hazards, DRAFTING, CHEAP_ROWS) for _ in range(2))
    gain = both.run(with_copies(), LookupDrafter()) / alone.run(assistant_alone(), None)
    assert gain >= (1.6 if hazards == KINDS["prose"] else 1.05)
    assert both.tokens_per_round >= 4.5


def test_rewriting_makes_more_than_six_tokens_a_round() -> None:
    made = []
    for prompt, reply in (tokens_of(*task) for task in TASKS.values()):
        dictated = DictatedReply(prompt, reply, KINDS["prose"], DRAFTING, CHEAP_ROWS)
        dictated.run(with_copies(), LookupDrafter())
        made.append(dictated.tokens_per_round)
    assert fmean(made) >= 6


@pytest.mark.parametrize("rows", [CHEAP_ROWS, DEAR_ROWS], ids=["cheap rows", "dear rows"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_text_does_not_lose(kind: str, rows: list[float]) -> None:
    shares = []
    for name in OTHER_TEXTS:
        prompt, reply = tokens_of("Write a text about this.", (ROOT / name).read_text()[:4000])
        alone, both = (DictatedReply(prompt, reply, KINDS[kind], DRAFTING, rows) for _ in range(2))
        shares.append(both.run(with_copies(), LookupDrafter()) / alone.run(assistant_alone(), None))
    assert fmean(shares) >= 0.98


def test_the_baseline_is_measured_even_if_every_round_copies() -> None:
    policy = with_copies()
    offers = [Offer(16), Offer(16, [0.99] * 16)]
    lengths = []
    for _ in range(300):
        choice = policy.choose(offers)
        lengths.append(choice.length)
        name = ("", ASSISTANT, LOOKUP)[choice.drafter + 1 if choice.length else 0]
        is_pipelined = lengths[-2:] == [0, 0]
        policy.observe(round_facts(choice.length, choice.length, is_pipelined, drafter=name), 0.03)
    assert 4 <= lengths.count(0) < 20


def test_copies_that_bring_nothing_have_to_promise_more_also_in_the_next_run() -> None:
    policy, offers = with_copies(), [Offer(16), Offer(16, [0.6] * 16)]
    for is_pipelined in (False, *[True] * 20):
        policy.observe(round_facts(0, 0, is_pipelined), 0.03)
    for _ in range(20):
        policy.observe(round_facts(4, 0, is_pipelined=False, drafter=ASSISTANT), 0.09)
        policy.observe(round_facts(0, 0, is_pipelined=True), 0.03)
    copied = []
    for _ in range(3):
        for _ in range(30):
            choice = policy.choose(offers)
            is_copy = choice.drafter == 1
            copied.append(is_copy)
            policy.observe(round_facts(choice.length, 0, not is_copy, drafter=LOOKUP), 0.05 if is_copy else 0.03)
        policy = AdaptiveDraft((ASSISTANT, LOOKUP), 4, policy.estimates)
    assert 1 <= sum(copied) <= 8
    assert policy.choose([Offer(16), Offer(16, [0.97] * 16)]).drafter == 1, "likely copies are still made"


def test_a_drafter_that_offers_nothing_is_not_chosen() -> None:
    assert with_copies().choose([Offer(0), Offer(0, ())]) == PLAIN
    assert with_copies().choose([Offer(0), Offer(3, [0.9] * 3)]).drafter == 1
    assert with_copies().choose([]) == PLAIN


def test_a_word_that_was_replaced_is_replaced_again() -> None:
    texts = "Write Maria:\n" + STORY, STORY.replace("Anna", "Maria")
    prompt, reply = tokens_of(*texts)
    names = [at for at, word in enumerate(words(texts[1])) if word == " Maria"]
    for count, at in enumerate(names):
        lookup = LookupDrafter()
        lookup.prefill(prompt, ())
        begin = at - 2
        assert lookup.offer([*prompt, *reply[:begin]], 6).tokens == 6
        frontier = Frontier(mx.array([reply[begin - 1]]), mx.zeros((1, 1, 1)), None)
        draft = lookup.propose([*prompt, *reply[:begin]], frontier, TargetCache([], {}), 6, GREEDY)
        is_new_name = token_list(draft.tokens)[2] == reply[at]
        assert is_new_name is (count > 0), "it is learned from the first one"
