"""Groups conversations of similar length into batches, to keep padding small."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from models.pocket.training.conversations import SampleSource
from models.pocket.training.turns import Sample

PAD_TO = 16
"""Lengths are rounded up to a multiple of this, to keep the number of shapes small."""
POOL_SAMPLES = 192
TURN_SHARES = {1: 0.46, 2: 0.23, 3: 0.15, 4: 0.09, 5: 0.05, 12: 0.02}
"""Share of the training tokens by number of turns."""
LOSS_ROWS_TO = 512


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded rows, and the positions that count for the loss."""

    tokens: mx.array
    """(rows, length) int32."""
    loss_rows: mx.array
    """(n,) int32: positions in the flattened rows whose next token is learned, padded with 0."""
    loss_targets: mx.array
    """(n,) int32: those next tokens."""
    loss_weights: mx.array
    """(n,) float32: 1, or 0 for padding."""

    @property
    def learned_tokens(self) -> int:
        """The number of tokens in the loss."""
        return int(self.loss_weights.sum())


def make_batch(samples: list[Sample]) -> Batch:
    """Pad `samples` to one length."""
    length = padded_length(samples)
    tokens = np.zeros((len(samples), length), np.int32)
    rows: list[int] = []
    targets: list[int] = []
    for index, sample in enumerate(samples):
        tokens[index, : len(sample.ids)] = sample.ids
        for position in range(1, len(sample.ids)):
            if sample.learned[position]:
                rows.append(index * length + position - 1)
                targets.append(sample.ids[position])
    padding = [0] * (-len(rows) % LOSS_ROWS_TO)
    return Batch(
        tokens=mx.array(tokens),
        loss_rows=mx.array(np.array(rows + padding, np.int32)),
        loss_targets=mx.array(np.array(targets + padding, np.int32)),
        loss_weights=mx.array(np.array([1.0] * len(rows) + padding, np.float32)),
    )


def endless_batches(source: SampleSource, batch_tokens: int, seed: int) -> Iterator[list[Sample]]:
    """Lists of samples of similar length; their padded length alone decides the number of rows, which is even."""
    rng = random.Random(seed)
    ready: dict[int, list[list[Sample]]] = {count: [] for count in TURN_SHARES}
    while True:
        turns = rng.choices(list(TURN_SHARES), weights=list(TURN_SHARES.values()))[0]
        while not ready[turns]:
            pool = [source.draw(turns) for _ in range(max(16, POOL_SAMPLES // turns))]
            ready[turns] = _cut(sorted(pool, key=lambda s: len(s.ids)), batch_tokens)
            rng.shuffle(ready[turns])
        yield ready[turns].pop()


def padded_length(samples: list[Sample]) -> int:
    """Of the batch that `samples` would make."""
    return -(-max(len(s.ids) for s in samples) // PAD_TO) * PAD_TO


def _cut(pool: list[Sample], batch_tokens: int) -> list[list[Sample]]:
    """Full batches, longest first. The rest is dropped, to keep the number of shapes small."""
    batches: list[list[Sample]] = []
    while pool:
        rows = max(2, batch_tokens // padded_length(pool[-1:]) // 2 * 2)
        if rows > len(pool):
            break
        batches.append(pool[-rows:])
        del pool[-rows:]
    return batches
