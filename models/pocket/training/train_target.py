"""Trains the pocket target on the answers of drawn conversations.

`train_target` starts the processes; `python -m models.pocket.training.train_target` is what each of them runs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import mlx.core as mx

from models.pocket.training.batches import Batch, endless_batches, make_batch
from models.pocket.training.conversations import ConversationSource
from models.pocket.training.evaluate import held_out_metrics
from models.pocket.training.fast_ops import cross_entropy, fast_ops
from models.pocket.training.forward import answer_logits
from models.pocket.training.learner import Learner, TrainingPlan
from models.pocket.training.lessons import load_corpus
from models.pocket.training.ring import Ring, run_ring
from models.pocket.training.target_config import new_target, save_target
from models.pocket.training.tokenizer import load_tokenizer

SEED = 20260501
STEPS = 1550
BATCH_TOKENS = 2048
"""For all processes together, including padding."""
MUON_RATE, ADAM_RATE, DECAY = 0.015, 4e-3, 0.02
LOG_EVERY, SAVE_EVERY, SCORE_EVERY = 20, 50, 200


def train_target(folder: Path, work: Path) -> None:
    """Train to the end, resuming from a checkpoint in `work`, and write the result into `folder`."""
    run_ring("models.pocket.training.train_target", [str(folder), str(work)], work)


def run(folder: Path, work: Path, steps: int) -> None:
    """One process's part of the training."""
    ring = Ring()
    corpus, tokenizer = load_corpus(), load_tokenizer(folder)
    mx.random.seed(SEED)
    model = new_target()

    def batch_loss(tokens: mx.array, rows: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
        return (cross_entropy(answer_logits(model, tokens, rows), targets) * weights).sum()

    plan = TrainingPlan(steps, MUON_RATE, ADAM_RATE, DECAY, work / "target.safetensors")
    learner = Learner(model, batch_loss, plan, ring)
    batches = endless_batches(ConversationSource(corpus, tokenizer, SEED), BATCH_TOKENS, SEED)
    for _ in range(learner.step):
        next(batches)
    started, tokens, losses = time.perf_counter(), 0, []
    while not learner.is_done:
        samples = next(batches)
        losses.append(learner.learn(*_arrays(make_batch(samples[ring.rank :: ring.size]))))
        tokens += sum(len(s.ids) for s in samples)
        if learner.step % LOG_EVERY == 0:
            speed = tokens / (time.perf_counter() - started)
            ring.log(f"step {learner.step} loss {sum(losses) / len(losses):.4f} tokens/s {speed:.0f}")
            started, tokens, losses = time.perf_counter(), 0, []
        if learner.step % SAVE_EVERY == 0 or learner.is_done:
            learner.save()
        if ring.rank == 0 and (learner.step % SCORE_EVERY == 0 or learner.is_done):
            ring.log(f"held out: {held_out_metrics(model, tokenizer, corpus)}")
    if ring.rank == 0:
        save_target(model, folder)


def _arrays(batch: Batch) -> tuple[mx.array, ...]:
    return batch.tokens, batch.loss_rows, batch.loss_targets, batch.loss_weights


def main() -> None:
    """The command line of one process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    with fast_ops():
        run(arguments.folder, arguments.work, arguments.steps)


if __name__ == "__main__":
    main()
