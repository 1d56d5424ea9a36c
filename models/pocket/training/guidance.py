"""Shows the target where to look while it practises copying.

To copy, one head has to look at the token before, and another at what followed the same token earlier. Neither is
of use without the other, so training alone finds the two late. A part of the loss asks for both from the start.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np

from models.pocket.training.batches import Batch
from models.pocket.training.fast_ops import logsumexp
from models.pocket.training.turns import Sample

SHARE = 0.5
"""Weight of each guided head beside the loss of a token."""
BACK_HEADS = ((2, 2), (6, 2))
"""(layer, head) that look at the token before."""
COPY_HEADS = ((9, 0), (9, 1), (14, 1), (14, 3), (19, 2), (24, 2))
"""(layer, head) that look at what is to be copied: in full layers, of which the last two read the keys of 14."""
LONGEST_MATCH = 12


@dataclass(frozen=True, slots=True)
class Guide:
    """For a padded batch: what the heads that copy should look at."""

    rows: mx.array
    """(n,) int32: positions in the flattened rows, padded with 0."""
    keys: mx.array
    """(n,) int32: where each should look in its own row."""
    weights: mx.array
    """(n,) float32: 1, or 0 for padding."""


def sources(sample: Sample) -> list[tuple[int, int]]:
    """(position, source) for every learned token that was said before, after the same token.

    The model reads `position` and is to say the token at `source`: the one with the longest match, then the last.
    """
    ids = sample.ids
    earlier: dict[tuple[int, int], list[int]] = defaultdict(list)
    found = []
    for at in range(1, len(ids)):
        pair = (ids[at - 1], ids[at])
        if sample.learned[at] and earlier[pair]:
            found.append((at - 1, max(earlier[pair], key=lambda source: (_match(ids, source, at), source))))
        earlier[pair].append(at)
    return found


def _match(ids: list[int], source: int, at: int) -> int:
    """How many tokens before the two positions are the same."""
    length = 0
    while length < min(source, LONGEST_MATCH) and ids[source - 1 - length] == ids[at - 1 - length]:
        length += 1
    return length


def make_guide(samples: list[Sample], batch: Batch) -> Guide:
    """batch: made of the samples. The guide is as long as its loss, to keep the number of shapes small."""
    length = batch.tokens.shape[1]
    found = [
        (row * length + position, source)
        for row, sample in enumerate(samples)
        for position, source in sources(sample)
    ]
    padding = [(0, 0)] * (len(batch.loss_rows) - len(found))
    rows, keys = np.array(found + padding, np.int32).T
    weights = np.array([1.0] * len(found) + [0.0] * len(padding), np.float32)
    return Guide(mx.array(rows), mx.array(keys), mx.array(weights))


def guidance_loss(scores: list[mx.array], guide: Guide) -> mx.array:
    """How far the heads look from where they should. scores: (rows, heads, length, length) of every layer."""
    total = mx.array(0.0)
    for layer, head in BACK_HEADS:
        own = scores[layer][:, head, 1:]
        before = mx.broadcast_to(mx.arange(own.shape[1])[None, :, None], (*own.shape[:2], 1))
        total = total + _surprise(own, before).mean()
    count = mx.maximum(guide.weights.sum(), 1.0)
    for layer, head in COPY_HEADS:
        own = scores[layer][:, head]
        own = own.reshape(-1, own.shape[-1])[guide.rows]
        total = total + (_surprise(own, guide.keys[:, None]) * guide.weights).sum() / count
    return total


def _surprise(scores: mx.array, keys: mx.array) -> mx.array:
    """-log of the share of attention that `keys` get."""
    at_keys = mx.take_along_axis(scores, keys, -1).squeeze(-1)
    return cast(mx.array, logsumexp(scores)) - at_keys
