"""Distils the pocket assistant from the trained target.

The assistant is unrolled as decoding uses it: its first step gets the target's hidden state of the last
verified token, the following ones its own, and all of them see keys and values up to that token only.
"""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models import gemma4

from mlx_engine.network.assistant import Assistant
from models.pocket.training.assistant_config import (
    CENTROID_TOP_K,
    CENTROIDS,
    new_assistant,
    save_assistant,
)
from models.pocket.training.centroids import balanced_clusters, fit_centroids, recall
from models.pocket.training.distillation import (
    UNROLLED_STEPS,
    DraftBatch,
    distil,
    distil_in_ring,
    make_draft_batch,
    reply_batches,
    run_one_process,
    scored_samples,
)
from models.pocket.training.fast_ops import logsumexp, softmax
from models.pocket.training.forward import head_logits, view_target
from models.pocket.training.learner import Learner, Stage
from models.pocket.training.lessons import load_corpus
from models.pocket.training.ring import Ring
from models.pocket.training.target_config import load_target
from models.pocket.training.tokenizer import load_tokenizer

SEED = 20260502
ASSISTANT = Stage("assistant", 900, 0.015, 4e-3, 0.02, 3072)
CENTROID_BATCHES = 40


def train_assistant(target: Path, folder: Path, work: Path) -> None:
    """Collect the target's replies, distil a new assistant from them, and write it into `folder`."""
    distil_in_ring("models.pocket.training.train_assistant", target, folder, work, SEED)


def unroll(
    assistant: Assistant, model: gemma4.Model, tokens: mx.array, positions: mx.array
) -> tuple[mx.array, ...]:
    """The target's logits at `positions`, (n, vocab), then the assistant's state there at each draft step.

    Row r of the batch is a round whose frontier is token r + 1; its draft step k speaks of position r + k.
    """
    view = view_target(model, tokens)
    length = tokens.shape[1]
    masks = round_masks(length, model.language_model.args.sliding_window)
    teacher = head_logits(model, view.hidden.reshape(-1, view.hidden.shape[-1])[positions])
    hidden, states = view.hidden, []
    for k in range(1, UNROLLED_STEPS + 1):
        # Rolling past the end brings in tokens from the start of the row; positions there have no weight.
        state, hidden = assistant(mx.roll(view.embedded, -k, 1), hidden, view.shared_kv, 1, masks)
        states.append(state.reshape(-1, state.shape[-1])[mx.maximum(positions - k, 0)])
    return teacher, *states


def round_masks(length: int, window: int) -> dict[str, mx.array]:
    """Row r sees keys up to r; in sliding layers the last window + 1 of them, as in decoding."""
    distance = mx.arange(length)[:, None] - mx.arange(length)[None]
    return {"full_attention": distance >= 0, "sliding_attention": (distance >= 0) & (distance <= window)}


def distillation_loss(assistant: Assistant, model: gemma4.Model, *batch: mx.array) -> mx.array:
    """Summed cross entropy against the target's distribution, over all draft steps."""
    tokens, positions, _, step_weights = batch
    teacher, *states = unroll(assistant, model, tokens, positions)
    probs = softmax(mx.stop_gradient(teacher))
    total = mx.array(0.0)
    for state, weights in zip(states, step_weights):
        logits = assistant.model.embed_tokens.as_linear(state)
        total = total + ((logsumexp(logits) - (probs * logits).sum(-1)) * weights).sum()
    return total


def acceptance_by_position(assistant: Assistant, model: gemma4.Model, batches: list[DraftBatch]) -> list[float]:
    """Share of rounds, started at every token of a reply, whose first 1, 2, ... greedy drafts are right."""
    right, rounds = np.zeros(UNROLLED_STEPS), np.zeros(UNROLLED_STEPS)
    for batch in batches:
        _, *states = unroll(assistant, model, batch.tokens, batch.positions)
        positions, weights = np.array(batch.positions), np.array(batch.step_weights)
        alive = np.ones(batch.tokens.size, bool)
        for k, state in enumerate(states):
            hits = np.array(mx.argmax(assistant.logits(state), axis=-1) == batch.targets)
            starts, is_round = np.maximum(positions - k - 1, 0), weights[k] > 0
            alive[starts[is_round & ~hits]] = False
            right[k] += alive[starts[is_round]].sum()
            rounds[k] += is_round.sum()
    return [round(float(share), 3) for share in right / np.maximum(rounds, 1)]


def run(target: Path, folder: Path, work: Path) -> None:
    """One process's part of the distillation."""
    ring = Ring()
    corpus, tokenizer, model = load_corpus(), load_tokenizer(target), load_target(target)
    mx.random.seed(SEED)
    assistant = new_assistant()
    plan = ASSISTANT.plan(work)
    learner = Learner(assistant, lambda *batch: distillation_loss(assistant, model, *batch), plan, ring)
    batches = reply_batches(corpus, tokenizer, ASSISTANT, work, SEED, learner.step)
    is_first = ring.rank == 0
    scored = [make_draft_batch([s]) for s in scored_samples(model, tokenizer, corpus)] if is_first else []
    distil(
        learner,
        batches,
        lambda samples: make_draft_batch(samples).arrays(),
        lambda: acceptance_by_position(assistant, model, scored),
        ring,
    )
    if is_first:
        drafts = [make_draft_batch(next(batches)) for _ in range(CENTROID_BATCHES)]
        finish(assistant, model, drafts, folder, ring)


def finish(assistant: Assistant, model: gemma4.Model, batches: list[DraftBatch], folder: Path, ring: Ring) -> None:
    """Fit the centroid head to the assistant's states, and write the assistant."""
    hidden, tokens = [], []
    for batch in batches:
        teacher, *states = unroll(assistant, model, batch.tokens, batch.positions)
        best = np.array(mx.argmax(teacher, axis=-1))
        for state, weights in zip(states, np.array(batch.step_weights)):
            hidden.append(np.array(state)[weights > 0])
            tokens.append(best[weights > 0])
    all_hidden, all_tokens = mx.array(np.concatenate(hidden)), mx.array(np.concatenate(tokens))
    table = assistant.model.embed_tokens.weight
    ordering = balanced_clusters(np.array(table), CENTROIDS)
    centroids = fit_centroids(all_hidden, all_tokens, table, ordering, CENTROIDS)
    share = recall(all_hidden, all_tokens, centroids, ordering, CENTROID_TOP_K)
    ring.log(f"the right token is in the top {CENTROID_TOP_K} of {CENTROIDS} clusters for {share:.4f} of drafts")
    save_assistant(assistant, centroids, mx.array(ordering), folder)


if __name__ == "__main__":
    run_one_process(run, __doc__)
