"""Trains the pocket target: on the lessons, then on exercises in calling tools between more of the same lessons.

With copying it begins with exercises in copying, and all stages have some. It then repeats and continues texts,
but answers fewer questions, so the weights in the package are without.

`train_target` starts the processes; `python -m models.pocket.training.train_target` is what each of them runs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import gemma4
from tokenizers import Tokenizer

from models.pocket.training.batches import endless_batches, make_batch
from models.pocket.training.conversations import SampleSource
from models.pocket.training.evaluate import exercise_metrics, held_out_metrics
from models.pocket.training.fast_ops import cross_entropy, fast_ops, watched_scores
from models.pocket.training.forward import answer_logits
from models.pocket.training.guidance import SHARE, Guide, guidance_loss, make_guide
from models.pocket.training.learner import Learner, Stage
from models.pocket.training.lessons import load_corpus
from models.pocket.training.practice import Practice, PracticeSource
from models.pocket.training.ring import Ring, run_ring
from models.pocket.training.target_config import new_target, save_target
from models.pocket.training.tokenizer import load_tokenizer
from models.pocket.training.turns import Sample

SEED = 20260501
LOG_EVERY, SAVE_EVERY, SCORE_EVERY = 20, 50, 400

LESSONS = Stage("target", 1550, 0.015, 4e-3, 0.02, 2048)
TOOLS = Stage("tools", 600, 0.003, 6e-4, 0.02, 2048)
REVIEW = Stage("review", 300, 0.0015, 3e-4, 0.02, 2048)
POLISH = Stage("polish", 150, 0.001, 2e-4, 0.02, 2048)
"""Slow, so that the lessons stay, and with more of them."""
POLISHED_SHARE = 0.65
"""Of the weights after the last stage in a mean with those before it, which answers more questions than either."""
COPYING = Stage("copying", 400, 0.015, 4e-3, 0.02, 2048)
"""First, with guided heads: attention that has settled on lessons learns it late, and loses most of them."""
LESSONS_WITH_COPYING = Stage("target", 1900, 0.015, 4e-3, 0.02, 2048)
"""As many lessons, between exercises."""


def train_target(folder: Path, work: Path, has_copying: bool) -> None:
    """Train to the end, resuming from a checkpoint in `work`, and write the result into `folder`."""
    flags = ["--copying"] if has_copying else []
    run_ring("models.pocket.training.train_target", [str(folder), str(work), *flags], work)


def run(folder: Path, work: Path, has_copying: bool) -> None:
    """One process's part of the training."""
    ring = Ring()
    corpus, tokenizer = load_corpus(), load_tokenizer(folder)
    mx.random.seed(SEED)
    model = new_target()

    def learn(stage: Stage, practice: Practice, seed: int) -> None:
        source = PracticeSource(corpus, tokenizer, practice, seed, has_copying)
        run_stage(stage, model, source, tokenizer, work, ring)

    if has_copying:
        learn(COPYING, "copying", SEED + 4)
    learn(LESSONS_WITH_COPYING if has_copying else LESSONS, "lessons", SEED)
    learn(TOOLS, "tools", SEED + 1)
    learn(REVIEW, "review", SEED + 2)
    before = dict(tree_flatten(model.parameters()))
    learn(POLISH, "review", SEED + 3)
    mean = {
        name: POLISHED_SHARE * after + (1 - POLISHED_SHARE) * before[name]
        for name, after in tree_flatten(model.parameters())
    }
    model.update(tree_unflatten(list(mean.items())))
    if ring.rank == 0:
        save_target(model, folder)


def run_stage(
    stage: Stage, model: gemma4.Model, source: SampleSource, tokenizer: Tokenizer, work: Path, ring: Ring
) -> None:
    """All steps that are left of a stage, with checkpoints, and scores by the first process."""

    def batch_loss(*batch: mx.array) -> mx.array:
        tokens, rows, targets, *guide, weights = batch
        with watched_scores() as scores:
            logits = answer_logits(model, tokens, rows)
        loss = (cross_entropy(logits, targets) * weights).sum()
        return loss + SHARE * guidance_loss(scores, Guide(*guide)) * weights.sum() if guide else loss

    learner = Learner(model, batch_loss, stage.plan(work), ring)
    batches = endless_batches(source, stage.batch_tokens, SEED)
    for _ in range(learner.step):
        next(batches)
    started, tokens, losses = time.perf_counter(), 0, []
    while not learner.is_done:
        samples = next(batches)
        losses.append(learner.learn(*_arrays(samples[ring.rank :: ring.size], stage)))
        tokens += sum(len(s.ids) for s in samples)
        if learner.step % LOG_EVERY == 0:
            speed = tokens / (time.perf_counter() - started)
            ring.log(f"step {learner.step} loss {sum(losses) / len(losses):.4f} tokens/s {speed:.0f}")
            started, tokens, losses = time.perf_counter(), 0, []
        if learner.step % SAVE_EVERY == 0 or learner.is_done:
            learner.save()
        if ring.rank == 0 and (learner.step % SCORE_EVERY == 0 or learner.is_done):
            ring.log(f"held out: {held_out_metrics(model, tokenizer, load_corpus())}")
            ring.log(f"exercises: {exercise_metrics(model, tokenizer, load_corpus())}")


def _arrays(samples: list[Sample], stage: Stage) -> tuple[mx.array, ...]:
    batch = make_batch(samples)
    guide = make_guide(samples, batch) if stage is COPYING else None
    guided = (guide.rows, guide.keys, guide.weights) if guide else ()
    return batch.tokens, batch.loss_rows, batch.loss_targets, *guided, batch.loss_weights


def main() -> None:
    """The command line of one process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--copying", action="store_true", help="teach copying as well")
    arguments = parser.parse_args()
    with fast_ops():
        run(arguments.folder, arguments.work, arguments.copying)


if __name__ == "__main__":
    main()
