"""The centroid head: balanced clusters of the vocabulary, each with a vector that selects it."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

FIT_STEPS = 600
FIT_ROWS = 1024
FIT_RATE = 5e-3


def balanced_clusters(table: np.ndarray, clusters: int) -> np.ndarray:
    """Token ids, cluster by cluster, of equal size: rows halved repeatedly along the widest direction."""
    groups = [np.arange(len(table))]
    while len(groups) < clusters:
        groups = [half for group in groups for half in _halves(table, group)]
    return np.concatenate([np.sort(group) for group in groups])


def _halves(table: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = table[group] - table[group].mean(0)
    _, vectors = np.linalg.eigh(rows.T @ rows)
    order = np.argsort(rows @ vectors[:, -1], kind="stable")
    return group[order[: len(group) // 2]], group[order[len(group) // 2 :]]


def fit_centroids(
    hidden: mx.array, tokens: mx.array, table: mx.array, ordering: np.ndarray, clusters: int
) -> mx.array:
    """Weights (clusters, hidden) that rank the cluster of `tokens` (n,) first for `hidden` (n, hidden).

    They start as the clusters' mean embeddings.
    """
    size = len(ordering) // clusters
    cluster_of = np.empty(len(ordering), np.int32)
    cluster_of[ordering] = np.arange(len(ordering)) // size
    labels = mx.array(cluster_of)[tokens]
    weights = table[mx.array(ordering)].reshape(clusters, size, -1).mean(1)
    m, v = mx.zeros_like(weights), mx.zeros_like(weights)

    def loss(weights: mx.array, rows: mx.array) -> mx.array:
        scores = hidden[rows] @ weights.T
        right = mx.take_along_axis(scores, labels[rows][:, None], -1).squeeze(-1)
        return (mx.logsumexp(scores, axis=-1) - right).mean()

    for step in range(FIT_STEPS):
        gradient = mx.grad(loss)(weights, mx.random.randint(0, len(labels), (FIT_ROWS,)))
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient.square()
        rate = FIT_RATE * (1 - step / FIT_STEPS)
        weights = weights - rate * (m / (1 - 0.9 ** (step + 1))) / (mx.sqrt(v / (1 - 0.99 ** (step + 1))) + 1e-8)
        mx.eval(weights, m, v)
    return weights


def recall(hidden: mx.array, tokens: mx.array, weights: mx.array, ordering: np.ndarray, top_k: int) -> float:
    """Share of `tokens` whose cluster is among the `top_k` best of their hidden state."""
    clusters = weights.shape[0]
    scores = hidden @ weights.T
    nearest = mx.argpartition(scores, kth=-top_k, axis=-1)[:, -top_k:]
    candidates = mx.array(ordering.reshape(clusters, -1))[nearest].reshape(len(tokens), -1)
    return float((candidates == tokens[:, None]).any(-1).mean())
