"""From scores to the distribution that tokens are drawn from.

Order: suppressed tokens, temperature, top-k, top-p. Greedy is the distribution that puts everything on
one token, and is kept as that token, so that nothing of vocabulary size is computed for it. Target and
drafter go through the same sampler: what the drafter declares is what it drew from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlx_engine.errors import RequestError


@dataclass(frozen=True, slots=True)
class Distribution:
    """One distribution per row. `probs` None: each row is certain of its token (a one-point distribution)."""

    tokens: mx.array
    """(rows,) int32: one draw per row; of a one-point distribution, its point."""
    probs: mx.array | None
    """(rows, vocab) float32."""


class Randomness:
    """Keys for one reply: the same seed gives the same keys in the same order, without asking the device."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._used = 0

    def next_key(self) -> mx.array:
        """A key that was not given out before."""
        self._used += 1
        return mx.random.key((self._seed << 32 | self._used) & (1 << 64) - 1)


@dataclass(frozen=True, slots=True)
class Sampler:
    """The settings of one reply. Raises RequestError if one is out of range."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    suppressed: tuple[int, ...] = ()
    """Token ids that are never drawn, by the target or the drafter."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise RequestError(f"Temperature {self.temperature} is out of range: use 0 (greedy) to 100.")
        if self.top_k < 0:
            raise RequestError(f"Top-k {self.top_k} is out of range: use 0 (keep all) or more.")
        if not 0 < self.top_p <= 1:
            raise RequestError(f"Top-p {self.top_p} is out of range: use more than 0, up to 1 (keep all).")

    @property
    def is_greedy(self) -> bool:
        """Every distribution is a point."""
        return self.temperature == 0

    def probabilities(self, logits: mx.array) -> mx.array:
        """Probabilities (rows, vocab) in float32 for logits (rows, vocab). Not for greedy."""
        scores = self._allowed(logits).astype(mx.float32) / self.temperature
        if 0 < self.top_k < scores.shape[-1] or self.top_p < 1:
            scores = mx.where(scores >= self._cutoff(scores), scores, -mx.inf)
        return mx.softmax(scores, axis=-1, precise=True)

    def best(self, logits: mx.array) -> mx.array:
        """The likeliest allowed token per row, (rows,) int32."""
        return mx.argmax(self._allowed(logits), axis=-1).astype(mx.int32)

    def draw(self, logits: mx.array, randomness: Randomness) -> Distribution:
        """One token per row of logits (rows, vocab), with the distribution it was drawn from."""
        if self.is_greedy:
            return Distribution(self.best(logits), None)
        probs = self.probabilities(logits)
        return Distribution(draw(probs, randomness.next_key()), probs)

    def _allowed(self, logits: mx.array) -> mx.array:
        if not self.suppressed:
            return logits
        rows = mx.array(self.suppressed, dtype=mx.int32)[None]
        return mx.put_along_axis(
            logits, mx.broadcast_to(rows, (len(logits), rows.size)), mx.array(-mx.inf), axis=-1
        )

    def _cutoff(self, scores: mx.array) -> mx.array:
        """The lowest score that is kept, (rows, 1). Equal scores are kept or dropped together."""
        k = min(self.top_k, scores.shape[-1]) or scores.shape[-1]
        top = mx.sort(mx.topk(scores, k, axis=-1), axis=-1)[..., ::-1]
        if self.top_p == 1:
            return top[..., -1:]
        probs = mx.softmax(top, axis=-1, precise=True)
        mass_above = mx.cumsum(probs, axis=-1) - probs
        return mx.min(mx.where(mass_above < self.top_p, top, mx.inf), axis=-1, keepdims=True)


def draw(weights: mx.array, key: mx.array) -> mx.array:
    """One index per row of non-negative weights (rows, n), in proportion to them; (rows,) int32.

    The Gumbel-max trick: adding Gumbel noise to log weights makes the largest a fair draw.
    """
    return mx.argmax(mx.log(weights) + mx.random.gumbel(weights.shape, key=key), axis=-1).astype(mx.int32)


def suppressed_within(ids: Sequence[int], vocab_size: int) -> tuple[int, ...]:
    """Those of the suppressed ids that the vocabulary has."""
    return tuple(sorted({token for token in ids if 0 <= token < vocab_size}))
