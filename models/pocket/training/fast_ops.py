"""Exponentials for training on MLX's CPU backend, which computes them one element at a time.

`exp` here is a fused chain of multiplications and additions, exact to about 2e-5; with it GeGLU, softmax
and the loss take a fifth of their time. `fast_ops()` puts them into mlx-lm's Gemma 4 for as
long as its block lasts: the weights that come out are the same network's, run without any of this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import mlx.core as mx
from mlx_lm.models import gemma4_text

SQUARINGS = 9
"""exp(x) = exp(x / 2**9) ** 2**9: only multiplications and additions, which MLX fuses into one loop."""
SMALLEST = -60.0
"""exp of less is taken as exp(-60): going on into denormal numbers would make everything after it slow."""
GELU_A, GELU_B = 0.7978845608028654, 0.044715
MASKED = -1e9


def _exp(x: mx.array) -> mx.array:
    y = mx.maximum(x, SMALLEST) * 2.0**-SQUARINGS
    p = 1 + y * (1 + y * (0.5 + y * (1 / 6 + y / 24)))
    for _ in range(SQUARINGS):
        p = p * p
    return p


def _tanh(x: mx.array) -> mx.array:
    return 1 - 2 / (_exp(mx.minimum(2 * x, 80.0)) + 1)


exp = mx.compile(_exp)


@mx.compile
def _geglu(gate: mx.array, x: mx.array) -> mx.array:
    return 0.5 * gate * (1 + _tanh(GELU_A * (gate + GELU_B * gate * gate * gate))) * x


@mx.compile
def _geglu_vjp(gate: mx.array, x: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    t = _tanh(GELU_A * (gate + GELU_B * gate * gate * gate))
    half = 0.5 * (1 + t)
    slope = half + 0.5 * gate * (1 - t * t) * GELU_A * (1 + 3 * GELU_B * gate * gate)
    return cotangent * x * slope, cotangent * gate * half


@mx.custom_function
def geglu(gate: mx.array, x: mx.array) -> mx.array:
    """gelu_approx(gate) * x."""
    return _geglu(gate, x)


@geglu.vjp
def _(primals: Any, cotangent: mx.array, _output: mx.array) -> tuple[mx.array, mx.array]:
    return _geglu_vjp(primals[0], primals[1], cotangent)


@mx.custom_function
def softmax(scores: mx.array) -> mx.array:
    """Over the last axis."""
    e = exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@softmax.vjp
def _(_primals: Any, cotangent: mx.array, p: mx.array) -> mx.array:
    return p * (cotangent - (cotangent * p).sum(-1, keepdims=True))


@mx.compile
def _softcap(cap: mx.array, x: mx.array) -> mx.array:
    return cap * _tanh(x / cap)


@mx.compile
def _softcap_vjp(cap: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * (1 - (output / cap) * (output / cap))


@mx.custom_function
def softcap(cap: mx.array, x: mx.array) -> mx.array:
    """cap * tanh(x / cap)."""
    return _softcap(cap, x)


@softcap.vjp
def _(primals: Any, cotangent: mx.array, output: mx.array) -> tuple[mx.array, mx.array]:
    return mx.zeros_like(primals[0]), _softcap_vjp(primals[0], cotangent, output)


@mx.custom_function
def logsumexp(x: mx.array) -> mx.array:
    """Over the last axis."""
    top = x.max(-1)
    return mx.log(exp(x - top[..., None]).sum(-1)) + top


@logsumexp.vjp
def _(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent[..., None] * exp(x - output[..., None])


def cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Per row: -log softmax(logits)[target]."""
    return cast(mx.array, logsumexp(logits)) - mx.take_along_axis(logits, targets[..., None], -1).squeeze(-1)


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: Any = None,
) -> mx.array:
    """Stands in for mlx-lm's scaled_dot_product_attention where there is one K/V head and no cache."""
    batch, heads, length, size = queries.shape
    span = keys.shape[2]
    flat = queries.reshape(batch, heads * length, size) * scale if scale != 1 else queries
    scores = (flat.reshape(batch, heads * length, size) @ keys[:, 0].swapaxes(1, 2)).reshape(
        batch, heads, length, span
    )
    if isinstance(mask, str):
        mask = mx.arange(length)[:, None] >= mx.arange(span)[None]
    if mask is not None:
        scores = scores + mx.where(mask, 0.0, MASKED)
    for seen in _watchers:
        seen.append(scores)
    weights = cast(mx.array, softmax(scores)).reshape(batch, heads * length, span)
    return (weights @ values[:, 0]).reshape(batch, heads, length, size)


_watchers: list[list[mx.array]] = []


@contextmanager
def watched_scores() -> Iterator[list[mx.array]]:
    """Within the block, and within `fast_ops`, all attention scores are appended, masked, in the layers' order."""
    seen: list[mx.array] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.remove(seen)


@contextmanager
def fast_ops() -> Iterator[None]:
    """Within the block, mlx-lm's Gemma 4 computes with this module's functions."""
    own = (gemma4_text.geglu, gemma4_text.scaled_dot_product_attention)
    gemma4_text.geglu, gemma4_text.scaled_dot_product_attention = geglu, attention
    try:
        yield
    finally:
        gemma4_text.geglu, gemma4_text.scaled_dot_product_attention = own
