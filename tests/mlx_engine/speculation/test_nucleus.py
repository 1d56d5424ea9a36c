"""Top-p without top-k over a large vocabulary: exactly the tokens of the definition, and nothing sorted whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine.speculation import nucleus
from mlx_engine.speculation.nucleus import SORTED_TOKENS, _by_bits, _by_halves, _by_sorting, least_kept
from mlx_engine.speculation.sampling import RandomStream, Sampler
from tests.mlx_engine.speculation.distributions import ALPHA, pvalue

pytestmark = pytest.mark.sampled(2)

GEMMA_VOCAB = 262_144
WAYS: dict[str, Callable[[mx.array, float], mx.array]] = {"halves": _by_halves, "bits": _by_bits}


def definition(weights: np.ndarray, top_p: float) -> np.ndarray:
    """Which entries are kept, by exact integers: those whose larger ones sum to less than top_p."""
    kept = np.zeros(weights.shape, bool)
    for row, values in enumerate(weights):
        for value in np.unique(values):
            kept[row, values == value] = values[values > value].sum() < top_p * values.sum()
    return kept


def dyadic_rows(vocab: int, kind: str) -> np.ndarray:
    """Integer weights that sum to a power of two, so that every sum of probabilities is exact in float32."""
    draw = np.random.default_rng(len(kind) + vocab)
    rows = []
    for _ in range(3):
        if kind == "flat":
            weights = np.ones(vocab, np.int64)
        elif kind == "peaked":
            weights = np.zeros(vocab, np.int64)
            weights[draw.integers(0, vocab, 12)] = 1 << draw.integers(0, 14, 12)
        else:
            weights = draw.integers(0, 5, vocab) * draw.integers(0, 3, vocab)
        weights[draw.integers(vocab)] += (
            (1 << 17) - weights.sum() if kind != "peaked" else (1 << 18) - weights.sum()
        )
        rows.append(weights)
    return np.stack(rows)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["flat", "peaked", "many ties"])
@pytest.mark.parametrize("vocab", [SORTED_TOKENS + 1, 4096, 5003])
@pytest.mark.parametrize("top_p", [2**-17, 0.25, 0.5, 0.75, 0.9375, 1 - 2**-17])
def test_exactly_the_tokens_of_the_definition_are_kept(way: str, kind: str, vocab: int, top_p: float) -> None:
    weights = dyadic_rows(vocab, kind)
    probs = mx.array((weights / weights.sum(-1, keepdims=True)).astype(np.float32))
    kept = np.array(probs >= WAYS[way](probs, top_p))
    expected = definition(weights, top_p)
    # Tokens without any probability are never drawn, kept or not.
    np.testing.assert_array_equal(kept & (weights > 0), expected & (weights > 0))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 3.0, 30.0])
def test_at_gemmas_vocabulary_both_ways_are_what_sorting_gives(way: str, temperature: float) -> None:
    """But for sums that differ in their last digits: where tokens are many, the edge may move by a few."""
    logits = mx.random.normal((2, GEMMA_VOCAB), key=mx.random.key(4)) * temperature
    probs = mx.softmax(logits, axis=-1, precise=True)
    kept = probs >= WAYS[way](probs, 0.95)
    sorted_kept = probs >= _by_sorting(probs, mx.zeros((2, 1)), 0.95)
    differing = mx.sum(mx.where(kept != sorted_kept, probs, 0))
    assert (differing < 5e-5).item()
    assert mx.all(mx.sum(mx.where(kept, probs, 0), axis=-1) >= 0.95 - 1e-5).item()


@pytest.mark.parametrize("top_k", [0, GEMMA_VOCAB])
@pytest.mark.parametrize("is_gpu", [False, True])
def test_no_more_than_a_few_tokens_are_sorted(top_k: int, is_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    own, lengths = mx.sort, []

    def counting(array: mx.array, **options: Any) -> mx.array:
        lengths.append(array.shape[-1])
        return own(array, **options)

    monkeypatch.setattr(mx, "sort", counting)
    if is_gpu:
        monkeypatch.setattr(nucleus, "_by_halves", _by_bits)
    Sampler(1.0, top_k=top_k, top_p=0.95).probabilities(mx.zeros((1, GEMMA_VOCAB)))
    assert all(length <= SORTED_TOKENS for length in lengths)


def test_a_row_with_suppressed_tokens_keeps_the_others() -> None:
    logits = mx.where(mx.arange(4096) < 3, 0.0, -mx.inf)[None]
    assert least_kept(mx.softmax(logits, axis=-1), 0.999).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("way", WAYS)
def test_draws_are_distributed_as_the_nucleus(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vocab, draws, top_p = 2048, 40_000, 0.9
    monkeypatch.setattr(nucleus, "_by_halves", WAYS[way])
    logits = np.random.default_rng(2).normal(0, 2.5, vocab).astype(np.float32)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum()
    order = np.argsort(-exact)
    above = np.cumsum(exact[order]) - exact[order]
    exact[order[above >= top_p]] = 0
    exact /= exact.sum()
    rows = mx.broadcast_to(mx.array(logits), (500, vocab))
    counts = np.zeros(vocab)
    for seed in range(draws // 500):
        drawn = Sampler(1.0, top_p=top_p, seed=seed).draw(rows, 0, RandomStream.TARGET).tokens
        counts += np.bincount(np.array(drawn), minlength=vocab)
    assert counts[exact == 0].sum() == 0
    assert pvalue(counts[exact > 0], draws * exact[exact > 0]) > ALPHA
