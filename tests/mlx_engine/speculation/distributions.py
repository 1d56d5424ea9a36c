"""Exact distributions to compare drawn tokens with, by chi-square."""

from __future__ import annotations

import numpy as np
from scipy.stats import chisquare

from mlx_engine.speculation.sampling import Sampler

ALPHA = 1e-4
"""Fixed seeds: a test that passes, passes always. Small, because there are many cases."""

VOCAB = 5


def exact(logits: np.ndarray, sampler: Sampler) -> np.ndarray:
    """Temperature, top-k, top-p, min-p in float64, written from their definitions."""
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
    p = np.where(is_kept & (p >= sampler.min_p * p.max(-1, keepdims=True)), p, 0)
    kept: np.ndarray = p / p.sum(-1, keepdims=True)
    return kept


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
    "min-p": Sampler(1.5, min_p=0.2),
    "all three": Sampler(1.3, top_k=4, top_p=0.95, min_p=0.1),
}
