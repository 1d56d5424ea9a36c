"""The rejection rule commits tokens distributed as the target's; a biased rule would be found out."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine.speculation import acceptance
from mlx_engine.speculation.acceptance import Verdict, accept
from mlx_engine.speculation.sampling import Distribution, draw
from tests.mlx_engine.speculation.distributions import ALPHA, P_LOGITS, Q_LOGITS, SAMPLERS, VOCAB, exact, pvalue

ROUNDS = 50_000
Rule = Callable[..., Verdict]
Keys = tuple[mx.array, mx.array]


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
        *keys, drafting = mx.random.split(key, 3)
        drafts = worst if q is None else draw(q, drafting)
        verdict = rule(Distribution(drafts, q), Distribution(mx.argmax(p, axis=-1), p), tuple(keys))
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


def _no_residual(draft: Distribution, target: Distribution, keys: Keys) -> Verdict:
    right = accept(draft, target, keys)
    assert target.probs is not None
    return Verdict(right.accepted, draw(mx.take(target.probs, right.accepted[None], axis=0), keys[1]))


def _bonus_from_the_wrong_row(draft: Distribution, target: Distribution, keys: Keys) -> Verdict:
    right = accept(draft, target, keys)
    assert target.probs is not None
    wrong = draw(target.probs[-2:-1], keys[1])
    return Verdict(right.accepted, mx.where(right.accepted == len(draft.tokens), wrong, right.token))


def _q_of_other_logits(draft: Distribution, target: Distribution, keys: Keys) -> Verdict:
    assert draft.probs is not None
    declared = mx.softmax(mx.log(draft.probs) * 2, axis=-1)
    return accept(Distribution(draft.tokens, declared), target, keys)


@pytest.mark.parametrize("rule", [_no_residual, _bonus_from_the_wrong_row, _q_of_other_logits])
def test_a_biased_rule_is_found_out(rule: Rule) -> None:
    assert worst_pvalue(rule, "poor", 2) < 1e-12


def test_declaring_a_certain_draft_as_drawn_is_found_out() -> None:
    p = mx.array(exact(P_LOGITS[:2], SAMPLERS["all"]).astype(np.float32))
    q = mx.softmax(mx.array(Q_LOGITS["poor"][:1].astype(np.float32)), axis=-1)
    likeliest = mx.argmax(q, axis=-1).astype(mx.int32)

    def one(key: mx.array) -> mx.array:
        keys = mx.random.split(key)
        verdict = accept(Distribution(likeliest, q), Distribution(p, p), (keys[0], keys[1]))
        return mx.where(verdict.accepted > 0, likeliest, verdict.token)

    drawn = np.array(mx.vmap(one)(mx.random.split(mx.random.key(0), ROUNDS)))[:, 0]
    observed = np.bincount(drawn, minlength=VOCAB)
    assert pvalue(observed, exact(P_LOGITS[:1], SAMPLERS["all"])[0] * ROUNDS) < 1e-12


def test_no_residual_left_falls_back_to_the_target() -> None:
    p = mx.array([[0.5, 0.5], [0.5, 0.5]])
    weights = acceptance._next_weights(Distribution(mx.array([0]), p[:1]), p, mx.array(0))
    assert weights.tolist() == [[0.5, 0.5]]
