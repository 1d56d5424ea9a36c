"""Distils the pocket DSpark drafter from the trained target: whole blocks, from outputs of its tapped layers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx_lm.models import gemma4, gemma4_text

from mlx_engine.network.layer_stack import before_attention, keys_and_values
from mlx_engine.speculation.block_drafter import DSparkModel
from models.pocket.training.batches import padded_length
from models.pocket.training.distillation import (
    distil,
    distil_in_ring,
    reply_batches,
    run_one_process,
    scored_samples,
)
from models.pocket.training.dspark_config import CONFIG, TAPS, new_dspark, save_dspark
from models.pocket.training.fast_ops import MASKED, logsumexp, softcap, softmax
from models.pocket.training.forward import head_logits
from models.pocket.training.learner import Learner, Stage
from models.pocket.training.lessons import load_corpus
from models.pocket.training.ring import Ring
from models.pocket.training.target_config import load_target
from models.pocket.training.tokenizer import load_tokenizer
from models.pocket.training.turns import Sample

SEED = 20260504
DSPARK_STAGE = Stage("dspark", 900, 0.015, 4e-3, 0.02, 3072)
BLOCK, MASK = CONFIG["block_size"], CONFIG["mask_token_id"]
BLOCKS_PER_ROW = 12
"""Blocks that a conversation of a batch teaches, at places drawn by chance."""
SLOT_DISCOUNT = 0.9
"""Weight of each further slot, which counts only if the slots before it were accepted."""


def train_dspark(target: Path, folder: Path, work: Path) -> None:
    """Distil a new drafter from the target's replies and write it into `folder`; resumes from `work`."""
    distil_in_ring("models.pocket.training.train_dspark", target, folder, work, SEED)


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """Padded conversations, and the blocks that they teach."""

    tokens: mx.array
    """(rows, length) int32."""
    anchors: mx.array
    """(rows, blocks) int32: positions of the last committed token of each block."""
    weights: mx.array
    """(rows * blocks, slots) float32: 0 where a slot's token is none of a reply, and in padding."""

    def arrays(self) -> tuple[mx.array, ...]:
        """The arrays in the order of the loss's arguments."""
        return self.tokens, self.anchors, self.weights


def make_block_batch(samples: Sequence[Sample], rng: random.Random, blocks: int | None = None) -> BlockBatch:
    """Pad `samples`. blocks: of each row; None: one at every token of a reply."""
    length = padded_length(list(samples)) + BLOCK
    starts = [[at for at in range(len(s.ids) - 1) if s.learned[at] and s.learned[at + 1]] for s in samples]
    count = blocks or max(map(len, starts))
    tokens = np.zeros((len(samples), length), np.int32)
    anchors = np.zeros((len(samples), count), np.int32)
    weights = np.zeros((len(samples), count, BLOCK), np.float32)
    for row, (sample, places) in enumerate(zip(samples, starts)):
        tokens[row, : len(sample.ids)] = sample.ids
        learned = [*sample.learned, *[False] * BLOCK]
        for index, at in enumerate(sorted(rng.sample(places, min(count, len(places))))):
            anchors[row, index] = at
            for slot in range(BLOCK):
                if not learned[at + 1 + slot]:
                    break
                weights[row, index, slot] = SLOT_DISCOUNT**slot
    return BlockBatch(mx.array(tokens), mx.array(anchors), mx.array(weights.reshape(-1, BLOCK)))


@contextmanager
def watched_outputs() -> Iterator[list[mx.array]]:
    """Within the block, the output of every layer of mlx-lm's Gemma 4 is appended."""
    seen: list[mx.array] = []
    own: Any = gemma4_text.DecoderLayer.__call__

    def watched(*arguments: Any, **named: Any) -> Any:
        result = own(*arguments, **named)
        seen.append(result[0])
        return result

    gemma4_text.DecoderLayer.__call__ = watched
    try:
        yield seen
    finally:
        gemma4_text.DecoderLayer.__call__ = own


def drafted_blocks(model: DSparkModel, taps: mx.array, tokens: mx.array, anchors: mx.array) -> mx.array:
    """Hidden states (rows * blocks, slots, hidden) of blocks at `anchors`, (rows, blocks), of `tokens`.

    taps: (rows, length, taps * hidden). A block sees the rows before its anchor, and itself.
    """
    network = model.network
    context = network.hidden_norm(network.fc(taps))
    rows, count = anchors.shape
    first = mx.take_along_axis(tokens, anchors, 1).reshape(-1, 1)
    x = model.embed(mx.concatenate([first, mx.full((len(first), BLOCK - 1), MASK, dtype=first.dtype)], 1))
    positions = anchors.reshape(-1)
    is_seen = (mx.arange(taps.shape[1]) < anchors[..., None])[:, :, None, None]
    for layer in network.layers:
        queries, keys, values = before_attention(layer, x, positions)
        old_keys, old_values = keys_and_values(layer.self_attn, context, 0)
        heads, size = queries.shape[1], queries.shape[-1]
        scores = queries.reshape(rows, -1, size) @ old_keys[:, 0].swapaxes(1, 2)
        scores = mx.where(is_seen, scores.reshape(rows, count, heads, BLOCK, -1), MASKED)
        own_scores = (queries @ keys.swapaxes(2, 3)).reshape(rows, count, heads, BLOCK, BLOCK)
        shares = cast(mx.array, softmax(mx.concatenate([scores, own_scores], -1)))
        old, own = shares[..., :-BLOCK], shares[..., -BLOCK:]
        attended = (old.reshape(rows, -1, old.shape[-1]) @ old_values[:, 0]).reshape(queries.shape)
        x = layer.finish(x, attended + own.reshape(-1, heads, BLOCK, BLOCK) @ values)
    hidden: mx.array = network.norm(x)
    return hidden


def block_logits(
    model: DSparkModel, target: gemma4.Model, tokens: mx.array, anchors: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    """The target's logits and the drafter's, both (blocks, slots, vocab), and the tokens, (blocks, slots).

    The drafter's are corrected by the tokens that came, as if every draft before them had been right.
    """
    with watched_outputs() as outputs:
        final = target.language_model.model(tokens)
    taps = mx.stop_gradient(mx.concatenate([outputs[layer] for layer in TAPS], -1))
    hidden = drafted_blocks(model, taps, tokens, anchors)
    rows, length = tokens.shape
    places = (mx.arange(rows)[:, None] * length + anchors).reshape(-1, 1) + mx.arange(BLOCK)
    teacher = head_logits(target, final.reshape(-1, final.shape[-1])[places])
    flat = tokens.reshape(-1)
    logits = cast(mx.array, softcap(mx.array(CONFIG["final_logit_softcapping"]), model.lm_head(hidden)))
    corrected = model.corrected(logits, flat[places])
    return mx.stop_gradient(teacher), corrected, flat[places + 1]


def block_loss(model: DSparkModel, target: gemma4.Model, *batch: mx.array) -> mx.array:
    """Summed cross entropy against the target's distribution, over all slots."""
    tokens, anchors, weights = batch
    teacher, logits, _ = block_logits(model, target, tokens, anchors)
    expected = (cast(mx.array, softmax(teacher)) * logits).sum(-1)
    return ((cast(mx.array, logsumexp(logits)) - expected) * weights).sum()


def accepted_by_slot(model: DSparkModel, target: gemma4.Model, batches: Sequence[BlockBatch]) -> list[float]:
    """Share of blocks, begun at every token of a reply, whose first 1, 2, ... greedy drafts are right."""
    right, blocks = np.zeros(BLOCK), np.zeros(BLOCK)
    for batch in batches:
        _, logits, tokens = block_logits(model, target, batch.tokens, batch.anchors)
        is_block = np.array(batch.weights) > 0
        hits = np.array(mx.argmax(logits, axis=-1) == tokens) & is_block
        right += np.logical_and.accumulate(hits, axis=1).sum(0)
        blocks += is_block.sum(0)
    return [round(float(share), 3) for share in right / np.maximum(blocks, 1)]


def run(target_folder: Path, folder: Path, work: Path) -> None:
    """One process's part of the distillation."""
    ring = Ring()
    corpus, tokenizer, target = load_corpus(), load_tokenizer(target_folder), load_target(target_folder)
    mx.random.seed(SEED)
    model = new_dspark(target)
    learner = Learner(model, lambda *batch: block_loss(model, target, *batch), DSPARK_STAGE.plan(work), ring)
    batches = reply_batches(corpus, tokenizer, DSPARK_STAGE, work, SEED, learner.step)
    rng = random.Random(SEED + learner.step * ring.size + ring.rank)
    is_first = ring.rank == 0
    scored = [make_block_batch([s], rng) for s in scored_samples(target, tokenizer, corpus)] if is_first else []
    distil(
        learner,
        batches,
        lambda samples: make_block_batch(samples, rng, BLOCKS_PER_ROW).arrays(),
        lambda: accepted_by_slot(model, target, scored),
        ring,
    )
    if is_first:
        save_dspark(model, folder)


if __name__ == "__main__":
    run_one_process(run, __doc__)
