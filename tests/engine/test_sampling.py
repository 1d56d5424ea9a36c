"""The distribution of what is committed is the target's: chi-square against exact float64 probabilities."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product

import mlx.core as mx
import numpy as np
import pytest
from scipy.stats import chisquare

from mlx_engine import acceptance
from mlx_engine.acceptance import Verdict, accept
from mlx_engine.drafters import Drafter
from mlx_engine.errors import RequestError
from mlx_engine.sampling import Distribution, Sampler, draw
from tests.engine.helpers import rounds, tokens
from tests.fakes.markov import MarkovDrafter, MarkovTarget, PointDrafter

ALPHA = 1e-4
"""Fixed seeds: a test that passes, passes always. Small, because there are many cases."""
ROUNDS = 50_000
REPLY_TOKENS = 15_000
VOCAB = 5
Rule = Callable[..., Verdict]


def exact(logits: np.ndarray, sampler: Sampler) -> np.ndarray:
    """Temperature, top-k, top-p in float64, written from their definitions."""
    scores = logits.astype(np.float64) / sampler.temperature
    ranks = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1)
    if sampler.top_k:
        scores = np.where(ranks < sampler.top_k, scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    order = np.argsort(-p, axis=-1, kind="stable")
    mass_above = np.cumsum(np.take_along_axis(p, order, -1), -1) - np.take_along_axis(p, order, -1)
    is_kept = np.zeros(p.shape, bool)
    np.put_along_axis(is_kept, order, mass_above < sampler.top_p, -1)
    p = np.where(is_kept, p, 0)
    return p / p.sum(-1, keepdims=True)


def pvalue(observed: np.ndarray, expected: np.ndarray) -> float:
    """Chi-square over cells; what should never occur must not, rare cells are pooled."""
    assert observed[expected == 0].sum() == 0, "something impossible was drawn"
    observed, expected = observed[expected > 0], expected[expected > 0]
    rare = expected < 5
    if rare.any() and expected[rare].sum() < 5:
        rare |= expected == expected[~rare].min()
    if rare.any():
        observed = np.append(observed[~rare], observed[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    return float(chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


TABLES = np.random.default_rng(5)
P_LOGITS = TABLES.normal(0, 1.5, (VOCAB, VOCAB))
Q_LOGITS = {
    "good": P_LOGITS + TABLES.normal(0, 0.4, P_LOGITS.shape),
    "poor": TABLES.normal(0, 1.5, P_LOGITS.shape),
}
SAMPLERS = {
    "all": Sampler(1.0),
    "hot": Sampler(1.7),
    "top-k": Sampler(1.0, top_k=3),
    "top-p": Sampler(0.8, top_p=0.8),
    "both": Sampler(1.2, top_k=4, top_p=0.9),
}


class KeysFrom:
    """Keys split from one, so that a rule can be mapped over many rounds at once."""

    def __init__(self, key: mx.array) -> None:
        self._key = key

    def next_key(self) -> mx.array:
        self._key, key = mx.random.split(self._key)
        return key


def first_tokens(rule: Rule, drafter: str, length: int, rounds_count: int = ROUNDS) -> list[np.ndarray]:
    """Counts per position of the tokens that `rule` commits; every round with the same p and q rows."""
    p = mx.array(exact(P_LOGITS[: length + 1], SAMPLERS["all"]).astype(np.float32))
    worst = mx.argmin(p[:length], axis=-1).astype(mx.int32)
    q = (
        None
        if drafter == "wrong"
        else mx.softmax(mx.array(Q_LOGITS[drafter][:length].astype(np.float32)), axis=-1)
    )

    def one(key: mx.array) -> mx.array:
        keys = KeysFrom(key)
        drafts = worst if q is None else draw(q, keys.next_key())
        verdict = rule(Distribution(drafts, q), Distribution(draw(p, keys.next_key()), p), keys)
        return mx.concatenate([verdict.accepted[None], verdict.token, drafts])

    outcome = np.array(mx.vmap(one)(mx.random.split(mx.random.key(length), rounds_count)))
    counts = [np.zeros(VOCAB) for _ in range(length + 1)]
    for position, count in enumerate(counts):
        drafted = outcome[outcome[:, 0] > position, 2 + position] if position < length else outcome[:0, 0]
        own = outcome[outcome[:, 0] == position, 1]
        count += np.bincount(np.concatenate([drafted, own]), minlength=VOCAB)
    return counts


def worst_pvalue(rule: Rule, drafter: str, length: int) -> float:
    p = exact(P_LOGITS[: length + 1], SAMPLERS["all"])
    counts = first_tokens(rule, drafter, length)
    return min(pvalue(count, row * count.sum()) for count, row in zip(counts, p) if count.sum() > 500)


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("drafter", ["good", "poor", "wrong"])
def test_the_rule_commits_what_the_target_would(drafter: str, length: int) -> None:
    assert worst_pvalue(accept, drafter, length) > ALPHA


def _no_residual(draft: Distribution, target: Distribution, keys: KeysFrom) -> Verdict:
    right = accept(draft, target, keys)
    return Verdict(right.accepted, draw(mx.take(target.probs, right.accepted[None], axis=0), keys.next_key()))


def _bonus_from_the_wrong_row(draft: Distribution, target: Distribution, keys: KeysFrom) -> Verdict:
    right = accept(draft, target, keys)
    wrong = draw(target.probs[-2:-1], keys.next_key())
    return Verdict(right.accepted, mx.where(right.accepted == len(draft.tokens), wrong, right.token))


def _q_of_other_logits(draft: Distribution, target: Distribution, keys: KeysFrom) -> Verdict:
    declared = mx.softmax(mx.log(draft.probs) * 2, axis=-1)
    return accept(Distribution(draft.tokens, declared), target, keys)


def _point_declared_as_drawn(draft: Distribution, target: Distribution, keys: KeysFrom) -> Verdict:
    """Drafts by argmax, but hands over the whole distribution as if it had drawn from it."""
    likeliest = mx.argmax(draft.probs, axis=-1).astype(mx.int32)
    return accept(Distribution(likeliest, draft.probs), target, keys)


@pytest.mark.parametrize("rule", [_no_residual, _bonus_from_the_wrong_row, _q_of_other_logits])
def test_a_biased_rule_is_found_out(rule: Rule) -> None:
    assert worst_pvalue(rule, "poor", 2) < 1e-12


def test_declaring_a_certain_draft_as_drawn_is_found_out() -> None:
    p = mx.array(exact(P_LOGITS[:2], SAMPLERS["all"]).astype(np.float32))
    q = mx.softmax(mx.array(Q_LOGITS["poor"][:1].astype(np.float32)), axis=-1)
    likeliest = mx.argmax(q, axis=-1).astype(mx.int32)

    def one(key: mx.array) -> mx.array:
        verdict = accept(Distribution(likeliest, q), Distribution(p, p), KeysFrom(key))
        return mx.where(verdict.accepted > 0, likeliest, verdict.token)

    drawn = np.array(mx.vmap(one)(mx.random.split(mx.random.key(0), ROUNDS)))[:, 0]
    observed = np.bincount(drawn, minlength=VOCAB)
    assert pvalue(observed, exact(P_LOGITS[:1], SAMPLERS["all"])[0] * ROUNDS) < 1e-12


@pytest.mark.parametrize("name", SAMPLERS)
def test_probabilities_are_the_definition(name: str) -> None:
    logits = np.random.default_rng(1).normal(0, 3, (64, 40))
    got = np.array(SAMPLERS[name].probabilities(mx.array(logits.astype(np.float32))))
    np.testing.assert_allclose(got, exact(logits, SAMPLERS[name]), atol=2e-6)


def test_suppressed_tokens_have_no_probability_and_are_never_best() -> None:
    logits = mx.array([[1.0, 5.0, 3.0]])
    assert Sampler(0, suppressed=(1,)).best(logits).tolist() == [2]
    assert Sampler(1.0, suppressed=(1,)).probabilities(logits)[0, 1].item() == 0


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="out of range"):
        Sampler(**wrong)


def drafter_named(name: str, sampler: Sampler) -> Drafter:
    if name == "wrong":
        return PointDrafter(exact(P_LOGITS, sampler).argmin(-1))
    return MarkovDrafter(Q_LOGITS[name])


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 1, 2, 4])
@pytest.mark.parametrize("sampler", ["all", "both"])
@pytest.mark.parametrize("drafter", ["good", "poor", "wrong"])
def test_pairs_and_triples_through_the_loop(drafter: str, sampler: str, length: int) -> None:
    settings = SAMPLERS[sampler]
    done = rounds(
        MarkovTarget(P_LOGITS), drafter_named(drafter, settings), [0, 0], REPLY_TOKENS, length,
        sampler=settings, seed=11,
    )  # fmt: skip
    reply = np.array([0, *tokens(done)])
    p = exact(P_LOGITS, settings)
    for span in (2, 3):
        assert pvalue(*_runs(reply, p, span)) > ALPHA


def _runs(reply: np.ndarray, p: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray]:
    """Observed and expected counts of runs of `span` tokens, apart from each other, given the token before."""
    starts = np.arange(0, len(reply) - span, span)
    assert len(starts) >= 5_000 - 1
    before = np.bincount(reply[starts], minlength=VOCAB)
    observed = np.zeros((VOCAB,) * (span + 1))
    np.add.at(observed, tuple(reply[starts + i] for i in range(span + 1)), 1)
    expected = np.zeros_like(observed)
    for cell in product(range(VOCAB), repeat=span + 1):
        chances = [p[last, following] for last, following in pairwise(cell)]
        expected[cell] = before[cell[0]] * np.prod(chances)
    return observed.ravel(), expected.ravel()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_reply(seed: int) -> None:
    def reply() -> list[int]:
        return tokens(
            rounds(MarkovTarget(P_LOGITS), drafter_named("poor", SAMPLERS["all"]), [0, 0], 100, 3,
                   sampler=SAMPLERS["all"], seed=seed)
        )  # fmt: skip

    assert reply() == reply()


def test_no_residual_left_falls_back_to_the_target() -> None:
    p = mx.array([[0.5, 0.5], [0.5, 0.5]])
    weights = acceptance._next_weights(Distribution(mx.array([0]), p[:1]), p, mx.array(0))
    assert weights.tolist() == [[0.5, 0.5]]
