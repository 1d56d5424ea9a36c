"""The distribution of what is committed is the target's: chi-square against exact float64 probabilities."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine.protocol.errors import RequestError
from mlx_engine.speculation.drafter import Drafter
from mlx_engine.speculation.lookup import LookupDrafter
from mlx_engine.speculation.model_drafter import ModelDrafter
from mlx_engine.speculation.sampling import (
    CHUNK,
    RandomStream,
    Sampler,
    _shortlist,
    history_rows,
)
from tests.cases import cases
from tests.fakes.markov import MarkovDrafter, MarkovTarget, PointDrafter
from tests.mlx_engine.helpers import rounds, tokens
from tests.mlx_engine.speculation.distributions import ALPHA, P_LOGITS, Q_LOGITS, SAMPLERS, VOCAB, exact, pvalue

REPLY_TOKENS = 15_000


@pytest.mark.parametrize("name", SAMPLERS)
def test_probabilities_are_the_definition(name: str) -> None:
    logits = np.random.default_rng(1).normal(0, 3, (64, 40))
    got = np.array(SAMPLERS[name].probabilities(mx.array(logits.astype(np.float32))))
    np.testing.assert_allclose(got, exact(logits, SAMPLERS[name]), atol=2e-6)


@pytest.mark.parametrize("k", [1, 3, 64])
@pytest.mark.parametrize("kind", ["normal", "tied", "mostly nothing", "all alike"])
def test_a_shortlist_holds_the_largest_scores(kind: str, k: int) -> None:
    vocab = 4 * 64 * CHUNK
    noise = mx.random.normal((3, vocab), key=mx.random.key(k))
    scores = {
        "normal": noise,
        "tied": mx.round(noise * 2),
        "mostly nothing": mx.where(noise > 3, noise, -mx.inf),
        "all alike": mx.zeros((3, vocab)),
    }[kind]
    short = _shortlist(scores, k)
    assert short.shape == (3, k * CHUNK)
    assert mx.array_equal(mx.sort(short)[:, -k:], mx.sort(scores)[:, -k:])


@pytest.mark.parametrize(("vocab", "k"), [(CHUNK * 8, 5), (CHUNK * 100 + 1, 1)])
def test_there_is_no_shortlist_where_it_would_not_be_shorter(vocab: int, k: int) -> None:
    assert _shortlist(mx.zeros((2, vocab)), k).shape == (2, vocab)


def test_suppressed_tokens_have_no_probability_and_are_never_best() -> None:
    logits = mx.array([[1.0, 5.0, 3.0]])
    assert Sampler(0, suppressed=(1,)).draw(logits, 0, RandomStream.TARGET).tokens.tolist() == [2]
    assert Sampler(1.0, suppressed=(1,)).probabilities(logits)[0, 1].item() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"min_p": float("nan")},
        {"repetition_penalty": 0},
        {"repetition_penalty": float("nan")},
        {"repetition_penalty": 101},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="out of range"):
        Sampler(**wrong)


def drafter_named(name: str, sampler: Sampler) -> Drafter:
    match name:
        case "wrong":
            return PointDrafter(exact(P_LOGITS, sampler).argmin(-1))
        case "model":
            return ModelDrafter(MarkovTarget(Q_LOGITS["good"]))
        case "lookup":
            return LookupDrafter()
    return MarkovDrafter(Q_LOGITS[name])


SOME_LOOP_CASES = [
    ("poor", "both", 4, "rejection"),
    ("wrong", "all", 2, "rejection"),
    ("good", "both", 2, "coupled"),
]
LOOP_CASES = [
    *[(drafter, sampler, length, "rejection")
      for drafter in ("good", "poor", "wrong") for sampler in ("all", "both") for length in (1, 2, 4)],
    *[(drafter, "all", length, "coupled") for drafter in ("good", "poor", "wrong") for length in (1, 4)],
    ("good", "both", 2, "coupled"),
    # Without drafts it does not matter whose they would have been.
    ("good", "all", 0, "rejection"),
    ("good", "both", 0, "rejection"),
    ("good", "all", 0, "coupled"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("drafter", "sampler", "length", "rule"), cases(SOME_LOOP_CASES, LOOP_CASES))
def test_pairs_and_triples_through_the_loop(drafter: str, sampler: str, length: int, rule: str) -> None:
    check_pairs_and_triples(drafter, sampler, length, rule)


@pytest.mark.slow
@pytest.mark.parametrize("drafter", ["model", "lookup"])
@pytest.mark.parametrize("rule", ["rejection", "coupled"])
@pytest.mark.sampled(2)
def test_pairs_and_triples_with_the_other_kinds(drafter: str, rule: str) -> None:
    check_pairs_and_triples(drafter, "all three", 3, rule)


def check_pairs_and_triples(drafter: str, sampler: str, length: int, rule: str) -> None:
    settings = replace(SAMPLERS[sampler], is_coupled=rule == "coupled")
    done = rounds(
        MarkovTarget(P_LOGITS), drafter_named(drafter, settings), [0, 0], REPLY_TOKENS, length,
        sampler=replace(settings, seed=11),
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
                   sampler=replace(SAMPLERS["all"], seed=seed))
        )  # fmt: skip

    assert reply() == reply()


def test_coupled_accepts_less_than_rejection_and_more_than_chance() -> None:
    """The price of the same words: acceptance falls, and stays far above that of drawing independently."""

    def acceptance(is_coupled: bool) -> float:
        sampler = Sampler(1.0, is_coupled=is_coupled, seed=3)
        done = rounds(MarkovTarget(P_LOGITS), MarkovDrafter(Q_LOGITS["good"]), [0, 0], 3_000, 1, sampler=sampler)
        return sum(r.accepted for r in done) / sum(r.drafted for r in done)

    p, q = exact(P_LOGITS, SAMPLERS["all"]), exact(Q_LOGITS["good"], SAMPLERS["all"])
    chance = (p * q).sum(-1).mean()
    assert chance + 0.1 < acceptance(is_coupled=True) < acceptance(is_coupled=False)


def test_a_positions_noise_does_not_depend_on_what_is_read_with_it() -> None:
    sampler = Sampler(1.0, is_coupled=True, seed=9)
    logits = mx.zeros((6, 50))
    together = sampler.draw(logits, 10, RandomStream.TARGET).tokens.tolist()
    apart = [sampler.draw(logits[:1], 10 + row, RandomStream.DRAFT).tokens.item() for row in range(6)]
    assert together == apart
    assert len(set(together)) > 1


def test_a_penalty_is_the_papers() -> None:
    logits = mx.array([[2.0, -1.0, 0.5, 3.0]])
    seen = mx.array([[True, True, False, False]])
    sampler = Sampler(1.0, repetition_penalty=2.0)
    expected = np.exp([1.0, -2.0, 0.5, 3.0])
    np.testing.assert_allclose(sampler.probabilities(logits, seen)[0], expected / expected.sum(), rtol=1e-5)


def test_history_grows_row_by_row() -> None:
    seen = mx.array([[True, False, False, False]])
    rows = history_rows(seen, mx.array([2, 0, 3]))
    assert rows is not None
    assert [[i for i, is_seen in enumerate(row) if is_seen] for row in np.array(rows)] == [
        [0],
        [0, 2],
        [0, 2],
        [0, 2, 3],
    ]
    assert history_rows(None, mx.array([2])) is None


def test_a_penalised_reply_has_the_penalised_distribution() -> None:
    """Second tokens after a known first one, over many seeds, with a drafter that is often wrong."""
    penalised = Sampler(1.0, repetition_penalty=3.0)
    seconds = np.zeros((VOCAB, VOCAB))
    for seed in range(1_500):
        sampler = replace(penalised, seed=seed)
        first, second = tokens(
            rounds(MarkovTarget(P_LOGITS), MarkovDrafter(Q_LOGITS["good"]), [0, 0], 2, 1, sampler=sampler)
        )
        seconds[first, second] += 1
    logits = P_LOGITS.copy()
    for token in range(VOCAB):
        own = logits[token, token]
        logits[token, token] = own / 3 if own > 0 else own * 3
    expected = exact(logits, SAMPLERS["all"]) * seconds.sum(-1, keepdims=True)
    assert pvalue(seconds.ravel(), expected.ravel()) > ALPHA
    unpenalised = exact(P_LOGITS, SAMPLERS["all"]) * seconds.sum(-1, keepdims=True)
    assert pvalue(seconds.ravel(), unpenalised.ravel()) < 1e-6
