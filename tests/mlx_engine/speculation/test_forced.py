"""Drafts of what a form forces: accepted always, paid with one wait, and the distribution stays what it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine.decode import DecodeOptions, generate
from mlx_engine.protocol.events import FORCED, MAX_DRAFT_LENGTH, RoundFacts
from mlx_engine.speculation.adaptive_draft import AdaptiveDraft
from mlx_engine.speculation.constraint import masked
from mlx_engine.speculation.draft_choice import PLAIN, Choice, FixedLength, Offer, Offers
from mlx_engine.speculation.drafter import Drafter
from mlx_engine.speculation.forced_drafter import ForcedDrafter
from mlx_engine.speculation.lookup import LookupDrafter
from mlx_engine.speculation.sampling import RandomStream, Sampler
from mlx_engine.text.grammar import Grammars, ReplyForm
from mlx_engine.text.prompt import ChatFormat
from models.pocket import TARGET_FOLDER
from tests.fakes.markov import MarkovDrafter, MarkovTarget, PointDrafter
from tests.mlx_engine.helpers import session_for, tokens
from tests.mlx_engine.speculation.distributions import ALPHA, P_LOGITS, Q_LOGITS, SAMPLERS, VOCAB, exact, pvalue

REPLY_TOKENS = 3_000
THOUGHT_END, ANSWER_END = 0, 4
ANSWER = np.array(
    [[1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [1, 1, 0, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]],
    dtype=bool,
)
"""Which token may follow which in an answer. 1 forces 3, and 3 forces the end."""


@dataclass
class ThoughtsAndAnswers:
    """Thoughts, in which everything may come, in turn with answers, in which little may."""

    last: int = 0
    is_thinking: bool = True
    committed: list[tuple[bool, int, int]] = field(default_factory=list)
    """Of every token: whether it is thought, the one before it, and itself."""

    def masks(self, draft: Sequence[int]) -> list[bytes]:
        rows, last, is_thinking = [], self.last, self.is_thinking
        for token in (*draft, 0):
            allowed = np.ones(VOCAB, bool) if is_thinking else ANSWER[last]
            rows.append(bytes([int(np.packbits(allowed, bitorder="little")[0])]))
            last, is_thinking = token, _next_part(is_thinking, token)
        return rows

    def forced(self, limit: int) -> list[int]:
        span: list[int] = []
        last, is_thinking = self.last, self.is_thinking
        while len(span) < limit and not is_thinking and ANSWER[last].sum() == 1:
            last = int(ANSWER[last].argmax())
            span.append(last)
            is_thinking = _next_part(is_thinking, last)
        return span

    def advance(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            assert self.is_thinking or ANSWER[self.last, token]
            self.committed.append((self.is_thinking, self.last, token))
            self.last, self.is_thinking = token, _next_part(self.is_thinking, token)


def _next_part(is_thinking: bool, token: int) -> bool:
    return token != THOUGHT_END if is_thinking else token == ANSWER_END


@dataclass
class ForcedFirst:
    """Takes what is forced where anything is, else a draft of the first drafter."""

    length: int
    is_cancelled: bool = False

    def next_draft(self, offers: Offers) -> Choice:
        forced = len(offers) - 1
        if offers[forced].tokens and self.length:
            return Choice(forced, offers[forced].tokens)
        return Choice(0, min(self.length, offers[0].tokens)) if forced else PLAIN


def decoded(
    drafter: Drafter | None, length: int, sampler: Sampler, rule: ThoughtsAndAnswers, max_tokens: int
) -> tuple[list[RoundFacts], int]:
    """The rounds of a reply through the real loop, and how often the host waited."""
    session = session_for(MarkovTarget(P_LOGITS), drafter, [0, 0])
    session.drafters = [*session.drafters, ForcedDrafter(rule)]
    options = DecodeOptions(sampler, frozenset(), max_tokens, ForcedFirst(length), constraint=rule)
    return list(generate(session, options)), session.host_syncs


DRAFTERS: dict[str, Drafter] = {
    "good": MarkovDrafter(Q_LOGITS["good"]),
    "poor": MarkovDrafter(Q_LOGITS["poor"]),
    "ends every thought": PointDrafter(np.zeros(VOCAB)),
}


@pytest.mark.slow
@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("drafter", "sampler", "length", "is_coupled"),
    [
        ("good", "all", 4, False),
        ("ends every thought", "both", 3, False),
        ("poor", "all three", 2, False),
        ("good", "hot", 4, True),
        ("none", "all", 1, False),
        ("good", "all", 0, False),
    ],
)
def test_thoughts_that_end_inside_a_round_and_forced_spans(
    drafter: str, sampler: str, length: int, is_coupled: bool
) -> None:
    """Against plain decoding with the same masks, in every state of the form."""
    settings, rule = replace(SAMPLERS[sampler], is_coupled=is_coupled, seed=11), ThoughtsAndAnswers()
    done, _ = decoded(DRAFTERS.get(drafter), length, settings, rule, REPLY_TOKENS)
    assert [token for *_, token in rule.committed] == tokens(done)
    spans = [each for each in done if each.drafter == FORCED]
    assert bool(spans) == bool(length)
    assert all(each.accepted == each.drafted for each in spans)
    for is_thinking in (True, False):
        allowed = np.ones_like(ANSWER) if is_thinking else ANSWER
        states = [last for last in range(VOCAB) if allowed[last].any()]
        p = exact(np.where(allowed, P_LOGITS, -np.inf)[states], settings)
        observed = np.zeros((VOCAB, VOCAB))
        pairs = [(last, token) for was_thought, last, token in rule.committed if was_thought == is_thinking]
        np.add.at(observed, tuple(np.array(pairs).T), 1)
        observed = observed[states]
        assert pvalue(observed.ravel(), (p * observed.sum(-1, keepdims=True)).ravel()) > ALPHA


def test_a_greedy_reply_is_the_same_with_and_without() -> None:
    def reply(length: int) -> list[int]:
        return tokens(decoded(DRAFTERS["good"], length, Sampler(0), ThoughtsAndAnswers(), 50)[0])

    assert reply(0) == reply(1) == reply(4)


def test_only_drafts_that_the_device_made_are_waited_for() -> None:
    done, waits = decoded(DRAFTERS["good"], 3, Sampler(1.0, seed=3), ThoughtsAndAnswers(), 300)
    from_device = sum(each.drafted > 0 and each.drafter != FORCED for each in done)
    assert 0 < from_device < sum(each.drafted > 0 for each in done)
    assert waits == len(done) + from_device


def test_a_copy_is_known_on_the_host_as_well() -> None:
    rule = ThoughtsAndAnswers()
    session = session_for(MarkovTarget(P_LOGITS), LookupDrafter(), [0, 1, 2] * 8)
    options = DecodeOptions(Sampler(1.0, seed=2), frozenset(), 60, ForcedFirst(2), constraint=rule)
    session.drafters = [*session.drafters, ForcedDrafter(rule)]
    done = list(generate(session, options))
    assert any(each.is_copied for each in done)
    assert session.host_syncs == len(done)


def test_a_span_is_no_longer_than_what_is_left_of_the_reply() -> None:
    for most in range(1, 12):
        done, _ = decoded(None, MAX_DRAFT_LENGTH, Sampler(1.0, seed=1), ThoughtsAndAnswers(), most)
        assert len(tokens(done)) == most


# What a policy makes of it


def observe(policy: AdaptiveDraft, name: str, drafted: int, accepted: int, round_s: float) -> None:
    ids = (0,) * (accepted + 1)
    policy.observe(RoundFacts(ids, drafted, accepted, is_pipelined=False, context_tokens=9, drafter=name), round_s)


def run(policy: AdaptiveDraft, rounds: int, span: int = 0) -> list[str]:
    """The drafter of each round, '' for plain ones. The assistant is right about three tokens."""
    names = []
    for _ in range(rounds):
        choice = policy.choose([Offer(MAX_DRAFT_LENGTH), Offer(span, [1.0] * span)])
        name = ("assistant", FORCED)[choice.drafter] if choice.length else ""
        accepted = min(3, choice.length) if name == "assistant" else choice.length
        observe(policy, name, choice.length, accepted, 1 + 0.1 * choice.length)
        names.append(name)
    return names


def test_drafting_goes_on_where_no_plain_round_is_begun_ahead() -> None:
    """None is with a grammar: the baseline was never known then, and every round was a probe of it."""
    policy = AdaptiveDraft(("assistant", FORCED), 4, pipelines_plain=False)
    names = run(policy, 200)
    assert names[40:].count("assistant") > 140
    assert "" in names[:40], "what plain rounds cost is measured once"


def test_a_span_is_chosen_whole_if_it_is_faster() -> None:
    policy = AdaptiveDraft(("assistant", FORCED), 4, pipelines_plain=False)
    run(policy, 60)
    choices = [policy.choose([Offer(16), Offer(span, [1.0] * span)]) for span in (1, 7, 11)]
    assert choices[0].drafter == 0, "the assistant brings more than two tokens"
    assert choices[1:] == [Choice(1, 7), Choice(1, 11)]


def test_a_copy_that_brings_nothing_makes_no_span_less_welcome() -> None:
    policy = AdaptiveDraft(("lookup", FORCED), 4, pipelines_plain=False)
    for _ in range(10):
        observe(policy, "lookup", 4, 0, 1.2)
    assert policy.choose([Offer(0, ()), Offer(3, [1.0] * 3)]) == Choice(1, 3)


def test_a_fixed_length_takes_what_is_forced_if_it_brings_more() -> None:
    policy = FixedLength(4, AdaptiveDraft(("assistant", FORCED), 4).tokens_of)
    assert policy.choose([Offer(4), Offer(4, [1.0] * 4)]) == Choice(1, 4)
    assert policy.choose([Offer(4), Offer(0, [])]) == Choice(0, 4)


# What llguidance's masks force

KEYS = [f"key_{index}" for index in range(20)]
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {key: {"type": "integer", "minimum": 0, "maximum": 9} for key in KEYS},
        "required": KEYS,
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(TARGET_FOLDER)


@pytest.fixture(scope="module")
def grammars(chat: ChatFormat) -> Grammars:
    return chat.grammars(frozenset({1, 106}), 2048)


def test_exactly_what_one_bit_of_the_mask_allows_is_forced(chat: ChatFormat, grammars: Grammars) -> None:
    answer = json.dumps({key: index % 10 for index, key in enumerate(KEYS)})
    ids, grammar = chat.encode(answer), grammars.grammar(ReplyForm(SCHEMA))
    passes = at = 0
    while at < len(ids):
        before, span = grammar.masks([]), grammar.forced(64)
        assert grammar.masks([]) == before, "asking changes nothing"
        assert grammar.forced(2) == span[:2]
        assert span == ids[at : at + len(span)], "the spelling that the tokenizer gives the text"
        rows = grammar.masks(span)
        alone = [int.from_bytes(row, "little").bit_count() == 1 for row in rows]
        assert alone == [True] * len(span) + [False]
        committed = ids[at : at + len(span) + 1]
        grammar.advance(committed)
        at, passes = at + len(committed), passes + 1
    assert passes == len(KEYS) + 1, "one for each value, and one for the last brace"


@pytest.mark.parametrize("ends", [{1}, {1, 106}])
def test_an_end_is_not_drafted(ends: set[int], chat: ChatFormat) -> None:
    grammar = chat.grammars(frozenset(ends), 2048).grammar(ReplyForm(SCHEMA))
    grammar.advance(chat.encode(json.dumps(dict.fromkeys(KEYS, 1))))
    assert grammar.forced(8) == []


def test_a_thought_forces_nothing_but_its_beginning(chat: ChatFormat, grammars: Grammars) -> None:
    grammar = grammars.grammar(ReplyForm(SCHEMA), "possible")
    assert grammar.forced(8) == [], "a thought or an answer"
    grammar.advance([100])
    span = grammar.forced(8)
    assert chat.encode("thought\n")[: len(span)] == span
    grammar.advance([*chat.encode("thought\nHm"), 101])
    assert grammar.forced(64) == grammars.grammar(ReplyForm(SCHEMA)).forced(64)


def test_a_mask_with_one_bit_leaves_one_token(grammars: Grammars) -> None:
    grammar = grammars.grammar(ReplyForm(SCHEMA))
    (token, *_) = grammar.forced(1)
    row = masked(mx.zeros((1, 2048), mx.float16), grammar.masks([]))
    assert Sampler(1.0, top_k=64, top_p=0.95).draw(row, 0, RandomStream.TARGET).tokens.tolist() == [token]
