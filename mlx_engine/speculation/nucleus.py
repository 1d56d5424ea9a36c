"""The smallest probability that top-p keeps, found without sorting the vocabulary.

A token is kept if all tokens that are more probable than it have less than `top_p` together, so tokens of the same
probability are kept or dropped together. Both ways give exactly this set, for any distribution, and never wait.
"""

from __future__ import annotations

import mlx.core as mx

SORTED_TOKENS = 1024
"""So few are sorted."""
PROBABILITY_BITS = 30
"""As integers, the floats from 0 to 1 are in order, and have no more bits than this."""


def least_kept(probs: mx.array, top_p: float) -> mx.array:
    """The smallest kept probability per row, (rows, 1), of probabilities (rows, vocab) in float32."""
    if probs.shape[-1] <= SORTED_TOKENS:
        return _by_sorting(probs, mx.zeros((len(probs), 1)), top_p)
    # To partition, a processor looks at each token about twice. Metal sorts, in many passes.
    is_gpu = mx.default_device() == mx.Device(mx.gpu)
    return _by_bits(probs, top_p) if is_gpu else _by_halves(probs, top_p)


def _by_sorting(probs: mx.array, above: mx.array, top_p: float) -> mx.array:
    """above: (rows, 1), the mass of tokens that are not in `probs` and more probable."""
    ordered = mx.sort(probs, axis=-1)[:, ::-1]
    above = above + mx.cumsum(ordered, axis=-1) - ordered
    return mx.min(mx.where(above < top_p, ordered, mx.inf), axis=-1, keepdims=True)


def _by_halves(probs: mx.array, top_p: float) -> mx.array:
    """Go on with the half that the answer is in, until the rest is short enough to sort."""
    above = mx.zeros((len(probs), 1))
    while (size := probs.shape[-1]) > SORTED_TOKENS:
        probs = mx.partition(probs, kth=size // 2, axis=-1)
        lower, upper = probs[:, : size // 2], probs[:, size // 2 :]
        if size % 2:
            lower = mx.concatenate([mx.zeros((len(probs), 1)), lower], axis=-1)
        mass = above + mx.sum(upper, axis=-1, keepdims=True)
        is_in_upper = mass >= top_p
        probs, above = mx.where(is_in_upper, upper, lower), mx.where(is_in_upper, above, mass)
    return _by_sorting(probs, above, top_p)


def _by_bits(probs: mx.array, top_p: float) -> mx.array:
    """Bit by bit: the largest number that still has `top_p` at or above it, or else the smallest probability."""
    bits = mx.view(probs, mx.uint32)
    floor = mx.zeros((len(probs), 1), mx.uint32)
    for bit in range(PROBABILITY_BITS - 1, -1, -1):
        candidate = floor + (1 << bit)
        mass = mx.sum(mx.where(bits >= candidate, probs, 0), axis=-1, keepdims=True)
        floor = mx.where(mass >= top_p, candidate, floor)
    return mx.view(floor, mx.float32)
