"""From scores to the token that is drawn, with the distribution it was drawn from.

Order: suppressed tokens, repetition penalty, temperature, top-k, top-p, min-p. Target and drafter go
through the same sampler: what the drafter declares is what it drew from.

Greedy is the distribution that puts everything on one token, and is kept as that token. Coupled sampling
(drafter-invariant speculative decoding: Daliri, Musco, Suresh 2024, Algorithm 2) is its equal: at every
position target and drafter take the token that wins under the same Gumbel noise, which depends on nothing
but the seed and the position. Given the noise a draw is certain, a draft stands where both choose the same
token, and the reply is the one that the target alone would have drawn, whatever was drafted.

All randomness is a function of seed, position and use, so no state is carried from draw to draw. A draft
that fell may share its noise with a later draft of the same position: nothing that was kept depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import mlx.core as mx

from mlx_engine.protocol.errors import RequestError


class Use(IntEnum):
    """What a random draw is for; each has noise of its own."""

    DRAFT = 0
    TARGET = 1
    ACCEPT = 2
    RESIDUAL = 3
    COUPLED = 4
    """Drafter and target alike."""


CHUNK = 64
"""Of a vocabulary, to find the largest scores in: at Gemma's size and top-k it leaves the least to sort."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """One distribution per row. `probs` None: each row is certain of its token (a one-point distribution)."""

    tokens: mx.array
    """(rows,) int32: one draw per row; of a one-point distribution, its point."""
    probs: mx.array | None
    """(rows, vocab) float32."""


NOTHING_DRAFTED = Distribution(mx.array([], dtype=mx.int32), None)


@dataclass(frozen=True, slots=True)
class Sampler:
    """The settings of one reply. Raises RequestError if one is out of range."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    """Keep tokens at least this share as likely as the likeliest; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Scores of tokens that the reply already holds are divided by it, or multiplied where negative
    (Keskar et al. 2019, section 4.1); 1 changes nothing."""
    suppressed: tuple[int, ...] = ()
    """Token ids that are never drawn, by the target or the drafter."""
    is_coupled: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise RequestError(f"Temperature {self.temperature} is out of range: use 0 (greedy) to 100.")
        if self.top_k < 0:
            raise RequestError(f"Top-k {self.top_k} is out of range: use 0 (keep all) or more.")
        if not 0 < self.top_p <= 1:
            raise RequestError(f"Top-p {self.top_p} is out of range: use more than 0, up to 1 (keep all).")
        if not 0 <= self.min_p <= 1:
            raise RequestError(f"Min-p {self.min_p} is out of range: use 0 (keep all) to 1.")
        if not 0 < self.repetition_penalty <= 100:
            raise RequestError(
                f"Repetition penalty {self.repetition_penalty} is out of range: use more than 0, "
                "up to 100; 1 changes nothing."
            )

    @property
    def is_greedy(self) -> bool:
        """Every distribution is a point, without any noise."""
        return self.temperature == 0

    @property
    def is_argmax(self) -> bool:
        """Every draw is the highest score, as it is: the rest of the vocabulary need not be looked at."""
        return self.is_greedy and not (self.suppressed or self.needs_history)

    @property
    def needs_history(self) -> bool:
        """Scores depend on the tokens that the reply already holds."""
        return self.repetition_penalty != 1

    def draw(self, logits: mx.array, position: int, use: Use, seen: mx.array | None = None) -> Distribution:
        """One token per row of logits (rows, vocab), with the distribution it was drawn from.

        position: in the conversation, of the token that the first row chooses; the rows follow each other.
        seen: (rows, vocab) bool, the tokens that the reply holds before each row; see `needs_history`.
        """
        if self.is_greedy:
            return Distribution(_best(self._allowed(logits, seen)), None)
        scores = self._scores(logits, seen)
        if self.is_coupled:
            return Distribution(_best(scores + self._shared_noise(scores.shape, position)), None)
        probs = mx.softmax(scores, axis=-1, precise=True)
        return Distribution(draw(probs, self.key(position, use)), probs)

    def probabilities(self, logits: mx.array, seen: mx.array | None = None) -> mx.array:
        """Probabilities (rows, vocab) in float32 for logits (rows, vocab). Not for greedy."""
        return mx.softmax(self._scores(logits, seen), axis=-1, precise=True)

    def key(self, position: int, use: Use) -> mx.array:
        """The key of the noise for a token at `position`, without asking the device."""
        return mx.random.key((self.seed << 32 | position << 3 | use) & (1 << 64) - 1)

    def _shared_noise(self, shape: tuple[int, ...], position: int) -> mx.array:
        # Row by row: a position's noise must not depend on how many rows were read with it.
        rows, vocab = shape
        keys = [self.key(position + row, Use.COUPLED) for row in range(rows)]
        return mx.stack([mx.random.gumbel((vocab,), key=key) for key in keys])

    def _scores(self, logits: mx.array, seen: mx.array | None) -> mx.array:
        """Log probabilities up to a constant per row, -inf for what is not kept."""
        scores = self._allowed(logits, seen).astype(mx.float32) / self.temperature
        keeps_all = not 0 < self.top_k < scores.shape[-1] and self.top_p == 1 and self.min_p == 0
        return scores if keeps_all else mx.where(scores >= self._cutoff(scores), scores, -mx.inf)

    def _allowed(self, logits: mx.array, seen: mx.array | None) -> mx.array:
        if seen is not None:
            penalised = mx.where(logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty)
            logits = mx.where(seen, penalised, logits)
        if not self.suppressed:
            return logits
        rows = mx.array(self.suppressed, dtype=mx.int32)[None]
        return mx.put_along_axis(
            logits, mx.broadcast_to(rows, (len(logits), rows.size)), mx.array(-mx.inf), axis=-1
        )

    def _cutoff(self, scores: mx.array) -> mx.array:
        """The lowest score that is kept, (rows, 1). Equal scores are kept or dropped together."""
        cutoff = mx.array(-mx.inf)
        if 0 < self.top_k < scores.shape[-1] or self.top_p < 1:
            cutoff = self._top_cutoff(scores)
        if self.min_p > 0:
            cutoff = mx.maximum(cutoff, mx.max(scores, axis=-1, keepdims=True) + math.log(self.min_p))
        return cutoff

    def _top_cutoff(self, scores: mx.array) -> mx.array:
        k = min(self.top_k, scores.shape[-1]) or scores.shape[-1]
        top = mx.sort(mx.topk(_shortlist(scores, k), k, axis=-1), axis=-1)[..., ::-1]
        if self.top_p == 1:
            return top[..., -1:]
        probs = mx.softmax(top, axis=-1, precise=True)
        mass_above = mx.cumsum(probs, axis=-1) - probs
        return mx.min(mx.where(mass_above < self.top_p, top, mx.inf), axis=-1, keepdims=True)


def draw(weights: mx.array, key: mx.array) -> mx.array:
    """One index per row of non-negative weights (rows, n), in proportion to them; (rows,) int32.

    The Gumbel-max trick: adding Gumbel noise to log weights makes the largest a fair draw.
    """
    return _best(mx.log(weights) + mx.random.gumbel(weights.shape, key=key))


def history_rows(seen: mx.array | None, tokens: mx.array) -> mx.array | None:
    """(len(tokens) + 1, vocab) bool: row i is `seen` (1, vocab) and the first i of `tokens`. None stays None."""
    if seen is None or not len(tokens):
        return seen
    named = tokens[:, None] == mx.arange(seen.shape[-1])
    return mx.concatenate([seen, seen | (mx.cumsum(named.astype(mx.int32), axis=0) > 0)])


def history_after(seen: mx.array | None, tokens: mx.array) -> mx.array | None:
    """The last of `history_rows`, (1, vocab)."""
    rows = history_rows(seen, tokens)
    return None if rows is None else rows[-1:]


def suppressed_within(ids: Sequence[int], vocab_size: int) -> tuple[int, ...]:
    """Those of the suppressed ids that the vocabulary has."""
    return tuple(sorted({token for token in ids if 0 <= token < vocab_size}))


def _shortlist(scores: mx.array, k: int) -> mx.array:
    """Fewer scores (rows, n) with the same k largest: those of the k chunks with the largest maxima.

    Metal sorts all of a row to partition it, and a vocabulary of 262,144 in fifteen passes.
    """
    rows, vocab = scores.shape
    if vocab % CHUNK or 2 * k * CHUNK > vocab:
        return scores
    chunks = scores.reshape(rows, -1, CHUNK)
    largest = mx.argpartition(mx.max(chunks, axis=-1), kth=-k, axis=-1)[:, -k:]
    return mx.take_along_axis(chunks, largest[..., None], axis=1).reshape(rows, -1)


def _best(scores: mx.array) -> mx.array:
    return mx.argmax(scores, axis=-1).astype(mx.int32)
