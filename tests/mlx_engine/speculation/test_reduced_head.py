"""A head over few tokens drafts like the whole one as far as it reaches, and replies are the target's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_engine.decode import DecodeOptions, Session, generate
from mlx_engine.network.assistant import Assistant
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import Gemma4Target
from mlx_engine.speculation.assistant_drafter import AssistantDrafter
from mlx_engine.speculation.drafter import Frontier
from mlx_engine.speculation.reduced_head import BLOCK_ROWS, ReducedHead
from mlx_engine.speculation.sampling import Distribution, Sampler
from tests.cases import cases
from tests.fakes import tiny
from tests.mlx_engine.helpers import ScriptedControl, rounds, token_list, tokens
from tests.mlx_engine.speculation.distributions import ALPHA, exact, pvalue

PROMPT = [5, 9, 2, 71, 33, 8]
LARGE = ("12b-unified", "26b-a4b", "31b")
FREQUENT = tuple(range(0, tiny.VOCAB, 3))


def table(bits: int | None) -> nn.Module:
    plain = nn.Embedding(tiny.VOCAB, 64)
    return plain.to_quantized(group_size=32, bits=bits) if bits else plain


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_scores_are_those_of_the_whole_head(bits: int | None) -> None:
    whole = table(bits)
    head = ReducedHead(whole, FREQUENT, tiny.VOCAB)
    hidden = mx.random.normal((1, 2, 64), key=mx.random.key(3))
    expected = np.array(whole.as_linear(hidden))
    for read, kept in (([], FREQUENT), ([4, 3, 4, 95], (*FREQUENT, 4, 95))):
        head.read(read)
        scores = np.array(head.logits(hidden))
        left_out = [id for id in range(tiny.VOCAB) if id not in kept]
        assert scores.shape == (1, 2, tiny.VOCAB)
        np.testing.assert_array_equal(scores[..., list(kept)], expected[..., list(kept)])
        assert (scores[..., left_out] == -np.inf).all()
        assert head.argmax(hidden).tolist() == scores.argmax(-1).tolist()


def test_the_conversation_is_read_once_and_forgotten_before_another() -> None:
    head = ReducedHead(table(None), [0], tiny.VOCAB)
    hidden = mx.ones((1, 1, 64))

    def drafted() -> set[int]:
        return set(np.flatnonzero(np.isfinite(np.array(head.logits(hidden)))).tolist())

    conversation = [7, 7, 0, 20]
    head.read(conversation)
    assert drafted() == {0, 7, 20}
    head.read([*conversation, *range(21, 21 + BLOCK_ROWS)])
    assert drafted() == {0, 7, *range(20, 21 + BLOCK_ROWS)}
    head.forget()
    assert drafted() == {0}
    head.read([3])
    assert drafted() == {0, 3}


@cache
def networks(layout: str) -> tuple[Gemma4Target, Assistant]:
    return tiny.target(layout), tiny.assistant(layout)


def reduced(layout: str, frequent: Sequence[int] = FREQUENT) -> AssistantDrafter:
    target, assistant = networks(layout)
    return AssistantDrafter(assistant, target, frequent)


@pytest.mark.parametrize("layout", LARGE)
@pytest.mark.parametrize("sampler", [Sampler(0), Sampler(1.0, top_k=8, seed=4, is_coupled=True)], ids=str)
def test_replies_are_those_without_drafting(layout: str, sampler: Sampler) -> None:
    target, _ = networks(layout)
    plain = rounds(target, None, PROMPT, 32, 0, sampler=sampler)
    drafted = rounds(target, reduced(layout), PROMPT, 32, 3, sampler=sampler)
    assert tokens(drafted) == tokens(plain)
    assert all(done.drafted for done in drafted[:-1])


@pytest.mark.parametrize(
    "rule", [{}, {"repetition_penalty": 1.3}, {"suppressed": (0, 3)}, {"top_p": 0.9}], ids=str
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_only_rows_are_drafted_and_what_was_said_gets_one(temperature: float, rule: dict[str, object]) -> None:
    target, _ = networks("31b")
    sampler = Sampler(temperature, seed=2, **rule)  # type: ignore[arg-type]
    drafter = Recording(reduced("31b"))
    done = rounds(target, drafter, PROMPT, 40, 4, sampler=sampler)
    said: set[int] = {*FREQUENT, *PROMPT}
    for facts, draft in zip(done[:-1], drafter.drafts, strict=False):
        assert set(token_list(draft.tokens)) <= said - set(sampler.suppressed)
        if draft.probs is not None:
            assert set(np.flatnonzero(np.array(draft.probs).sum(0)).tolist()) <= said
        said |= set(facts.token_ids)
    assert len(drafter.drafts) > 5


class Recording:
    """Keeps every draft, or tells another distribution for it than it was drawn from."""

    def __init__(self, drafter: AssistantDrafter, told_by: AssistantDrafter | None = None) -> None:
        self._drafter, self._told_by = drafter, told_by
        self.name, self.offer, self.rollback = drafter.name, drafter.offer, drafter.rollback
        self.prefill = drafter.prefill
        self.drafts: list[Distribution] = []

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        draft = self._drafter.propose(committed, frontier, cache, length, sampler)
        if self._told_by:
            told = self._told_by.propose(committed, frontier, cache, length, sampler)
            draft = Distribution(draft.tokens, told.probs)
        self.drafts.append(draft)
        return draft


REPLIES = 400
SHARP = Sampler(0.7, top_k=5)


def first_two_tokens(drafter: Recording, length: int) -> np.ndarray:
    """How often each pair of tokens begins a reply, (vocab, vocab)."""
    target, _ = networks("12b-unified")
    counts = np.zeros((tiny.VOCAB, tiny.VOCAB))
    prefix = PrefixCache(target)
    for seed in range(REPLIES):
        prefix.resume(PROMPT)
        options = DecodeOptions(replace(SHARP, seed=seed), frozenset(), 3, ScriptedControl([length]))
        reply = tokens(list(generate(Session(target, [drafter], prefix), options)))
        counts[reply[0], reply[1]] += 1
    return counts


def probabilities(text: Sequence[int]) -> np.ndarray:
    """The target's own, in float64."""
    target, _ = networks("12b-unified")
    hidden = target.forward(mx.array([list(text)]), target.new_cache())
    rows = exact(np.array(target.logits(hidden)[-1:]), SHARP)
    return rows.reshape(-1)


@cache
def expected_pairs() -> np.ndarray:
    first = probabilities(PROMPT)
    expected = np.zeros((tiny.VOCAB, tiny.VOCAB))
    for token in np.flatnonzero(first):
        expected[token] = first[token] * probabilities([*PROMPT, int(token)])
    return expected


def frequent_for_the_loop() -> tuple[int, ...]:
    """Some of what the target says, but not its first choice, and others."""
    likely = np.argsort(-probabilities(PROMPT))[:5].tolist()
    return tuple(sorted({*likely[1:3], *range(0, tiny.VOCAB, 9)} - {likely[0], *likely[3:]}))


@pytest.mark.slow
@pytest.mark.parametrize("length", cases([2], [1, 2]))
def test_the_distribution_is_the_targets(length: int) -> None:
    drafter = Recording(reduced("12b-unified", frequent_for_the_loop()))
    observed = first_two_tokens(drafter, length)
    expected = expected_pairs()
    assert pvalue(observed.ravel(), REPLIES * expected.ravel()) > ALPHA
    assert (expected > 0).sum() > 15, "worth a test"
    first = expected.sum(1)
    assert first[[id for id in range(tiny.VOCAB) if id not in frequent_for_the_loop()]].sum() > 0.2


@pytest.mark.slow
def test_a_distribution_over_the_whole_head_would_be_noticed() -> None:
    drafter = Recording(reduced("12b-unified", frequent_for_the_loop()), told_by=reduced("12b-unified", ()))
    observed, expected = first_two_tokens(drafter, 2), expected_pairs()
    assert pvalue(observed.ravel(), REPLIES * expected.ravel()) < ALPHA
