"""From logits to a drawn token, together with the distribution it was drawn from.

Order: repetition penalty, suppressed tokens, temperature, top-k, top-p, min-p. Target and drafter use the same
sampler, so the distribution that a draft declares is the one it was drawn from.

Greedy sampling has a point mass at one token, and is represented by that token. So is coupled sampling
(drafter-invariant speculative decoding: Daliri, Musco, Suresh 2024, Algorithm 2): at every position target and
drafter add the same Gumbel noise, which depends on nothing but the seed and the position, and take the largest
logit. Given the noise each draw is certain. A draft is accepted where both choose the same token, and the reply is
the one that the target alone would have drawn, whatever was drafted.

All randomness is a function of seed, position and stream, so no state is carried from draw to draw. A rejected
draft may share its noise with a later draft at the same position: no accepted token depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import mlx.core as mx

from mlx_engine.protocol.errors import RequestError
from mlx_engine.speculation.nucleus import least_kept


class RandomStream(IntEnum):
    """Independent streams of noise, one per purpose."""

    DRAFT = 0
    TARGET = 1
    ACCEPT = 2
    RESIDUAL = 3
    COUPLED = 4
    """Shared by drafter and target."""


CHUNK = 64
"""Tokens per chunk of the vocabulary when looking for the largest logits: at Gemma's vocabulary size and top-k
this leaves the fewest to sort."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """One distribution per row, and a token drawn from each."""

    tokens: mx.array
    """(rows,) int32"""
    probs: mx.array | None
    """(rows, vocab) float32; None: each row is a point mass at its token."""
    known: tuple[int, ...] | None = None
    """The tokens where the host knows them without waiting for the device."""


def point_masses(tokens: Sequence[int]) -> Distribution:
    """A row for each of these tokens, which are certain."""
    return Distribution(mx.array(list(tokens), dtype=mx.int32), None, tuple(tokens))


NO_DRAFT = point_masses(())


@dataclass(frozen=True, slots=True)
class Sampler:
    """The settings of one reply. Raises RequestError if one is out of range."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    """Keep tokens whose probability is at least this share of the largest one; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Logits of tokens that the reply already contains are divided by it, or multiplied where negative
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
        """Every distribution is a point mass, without any noise."""
        return self.temperature == 0

    @property
    def is_argmax(self) -> bool:
        """Every draw is the largest logit as it is: nothing else about the logits matters."""
        return self.is_greedy and not (self.suppressed or self.needs_history)

    @property
    def needs_history(self) -> bool:
        """Draws depend on the tokens that the reply already contains."""
        return self.repetition_penalty != 1

    def draw(
        self, logits: mx.array, position: int, stream: RandomStream, seen: mx.array | None = None
    ) -> Distribution:
        """Draw one token per row of logits (rows, vocab).

        position: in the conversation, of the token that the first row predicts; rows are consecutive.
        seen: (rows, vocab) bool, the tokens that the reply contains before each row; see `needs_history`.
        """
        if self.is_greedy:
            return Distribution(_argmax(self._allowed(logits, seen)), None)
        logits = self._kept(logits, seen)
        if self.is_coupled:
            return Distribution(_argmax(logits + self._shared_noise(logits.shape, position)), None)
        probs = mx.softmax(logits, axis=-1, precise=True)
        return Distribution(draw(probs, self.key(position, stream)), probs)

    def probabilities(self, logits: mx.array, seen: mx.array | None = None) -> mx.array:
        """Probabilities (rows, vocab) in float32 for logits (rows, vocab). Not for greedy sampling."""
        return mx.softmax(self._kept(logits, seen), axis=-1, precise=True)

    def key(self, position: int, stream: RandomStream) -> mx.array:
        """The key of the noise for a token at `position`, computed on the host."""
        return mx.random.key((self.seed << 32 | position << 3 | stream) & (1 << 64) - 1)

    def _shared_noise(self, shape: tuple[int, ...], position: int) -> mx.array:
        # Row by row: a position's noise must not depend on how many rows were read with it.
        rows, vocab = shape
        keys = [self.key(position + row, RandomStream.COUPLED) for row in range(rows)]
        return mx.stack([mx.random.gumbel((vocab,), key=key) for key in keys])

    def _kept(self, logits: mx.array, seen: mx.array | None) -> mx.array:
        """Final logits in float32, -inf for tokens that are never drawn."""
        logits = self._allowed(logits, seen).astype(mx.float32) / self.temperature
        keeps_all = not 0 < self.top_k < logits.shape[-1] and self.top_p == 1 and self.min_p == 0
        return logits if keeps_all else mx.where(logits >= self._cutoff(logits), logits, -mx.inf)

    def _allowed(self, logits: mx.array, seen: mx.array | None) -> mx.array:
        """Logits after the repetition penalty, -inf for suppressed tokens."""
        if seen is not None:
            penalised = mx.where(logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty)
            logits = mx.where(seen, penalised, logits)
        if not self.suppressed:
            return logits
        rows = mx.array(self.suppressed, dtype=mx.int32)[None]
        return mx.put_along_axis(
            logits, mx.broadcast_to(rows, (len(logits), rows.size)), mx.array(-mx.inf), axis=-1
        )

    def _cutoff(self, logits: mx.array) -> mx.array:
        """The lowest logit to keep, (rows, 1). Equal logits are kept or dropped together."""
        cutoff = mx.array(-mx.inf)
        if 0 < self.top_k < logits.shape[-1] or self.top_p < 1:
            cutoff = self._top_cutoff(logits)
        if self.min_p > 0:
            cutoff = mx.maximum(cutoff, mx.max(logits, axis=-1, keepdims=True) + math.log(self.min_p))
        return cutoff

    def _top_cutoff(self, logits: mx.array) -> mx.array:
        if not 0 < self.top_k < logits.shape[-1]:
            probs = mx.softmax(logits, axis=-1, precise=True)
            kept = probs >= least_kept(probs, self.top_p)
            return mx.min(mx.where(kept, logits, mx.inf), axis=-1, keepdims=True)
        k = self.top_k
        top = mx.sort(mx.topk(_shortlist(logits, k), k, axis=-1), axis=-1)[..., ::-1]
        if self.top_p == 1:
            return top[..., -1:]
        probs = mx.softmax(top, axis=-1, precise=True)
        mass_above = mx.cumsum(probs, axis=-1) - probs
        return mx.min(mx.where(mass_above < self.top_p, top, mx.inf), axis=-1, keepdims=True)


def draw(weights: mx.array, key: mx.array) -> mx.array:
    """Draw one index per row of non-negative weights (rows, n), in proportion to them; (rows,) int32.

    The Gumbel-max trick: with Gumbel noise added, the index of the largest log weight is such a draw.
    """
    return _argmax(mx.log(weights) + mx.random.gumbel(weights.shape, key=key))


def history_rows(seen: mx.array | None, tokens: mx.array) -> mx.array | None:
    """(len(tokens) + 1, vocab) bool: row i is `seen` (1, vocab) and the first i of `tokens`. None stays None."""
    if seen is None or not len(tokens):
        return seen
    one_hot = tokens[:, None] == mx.arange(seen.shape[-1])
    return mx.concatenate([seen, seen | (mx.cumsum(one_hot.astype(mx.int32), axis=0) > 0)])


def history_after(seen: mx.array | None, tokens: mx.array) -> mx.array | None:
    """The last row of `history_rows`, (1, vocab)."""
    rows = history_rows(seen, tokens)
    return None if rows is None else rows[-1:]


def suppressed_within(ids: Sequence[int], vocab_size: int) -> tuple[int, ...]:
    """The suppressed ids that are in the vocabulary, sorted."""
    return tuple(sorted({token for token in ids if 0 <= token < vocab_size}))


def _shortlist(logits: mx.array, k: int) -> mx.array:
    """Fewer logits (rows, n) with the same k largest: those of the k chunks with the largest maxima.

    Metal sorts a whole row to partition it, and takes fifteen passes for a vocabulary of 262,144.
    """
    rows, vocab = logits.shape
    if vocab % CHUNK or 2 * k * CHUNK > vocab:
        return logits
    chunks = logits.reshape(rows, -1, CHUNK)
    largest = mx.argpartition(mx.max(chunks, axis=-1), kth=-k, axis=-1)[:, -k:]
    return mx.take_along_axis(chunks, largest[..., None], axis=1).reshape(rows, -1)


def _argmax(logits: mx.array) -> mx.array:
    return mx.argmax(logits, axis=-1).astype(mx.int32)
