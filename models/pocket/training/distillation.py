"""What the distillations of both drafters share: the target's own replies, the loop, and their processes.

Also the positions at which the assistant learns drafts.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models import gemma4
from tokenizers import Tokenizer

from models.pocket.training.augment import vary
from models.pocket.training.batches import Batch, endless_batches, make_batch
from models.pocket.training.conversations import SampleSource, encode_conversation
from models.pocket.training.evaluate import greedy_replies
from models.pocket.training.fast_ops import fast_ops
from models.pocket.training.learner import Learner, Stage
from models.pocket.training.lessons import Corpus, load_corpus, normalised
from models.pocket.training.out_of_scope import out_of_scope
from models.pocket.training.practice import PracticeSource
from models.pocket.training.ring import Ring, run_ring
from models.pocket.training.target_config import load_target
from models.pocket.training.tokenizer import load_tokenizer
from models.pocket.training.turns import Sample

REPLIES_FILE = "own_replies.json"
LOG_EVERY, SAVE_EVERY, SCORE_EVERY = 20, 50, 300
SCORED_QUESTIONS = 96
UNROLLED_STEPS = 6
STEP_DISCOUNT = 0.9
"""Weight of each further draft step, which counts only if the steps before it were accepted."""
WORDINGS = 2
"""Of each lesson that the target answers; the first as in the corpus."""
OUT_OF_SCOPE_QUESTIONS = 150
DRAWN_SHARE = 0.5
"""Of the conversations, drawn as the target's own training drew them; the others are the target's replies."""


def distil_in_ring(module: str, target: Path, folder: Path, work: Path, seed: int) -> None:
    """Collect the target's replies unless they are in `work`, and run `module` in all processes of a ring."""
    if not (work / REPLIES_FILE).exists():
        tokenizer = load_tokenizer(target)
        write_own_replies(load_target(target), tokenizer, load_corpus(), work / REPLIES_FILE, seed)
    run_ring(module, [str(target), str(folder), str(work)], work)


def run_one_process(run: Callable[[Path, Path, Path], None], description: str | None) -> None:
    """The command line of one process. run: takes the folders of target, drafter and checkpoints."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("target", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    with fast_ops():
        run(arguments.target, arguments.folder, arguments.work)


def reply_batches(
    corpus: Corpus, tokenizer: Tokenizer, stage: Stage, work: Path, seed: int, done_steps: int
) -> Iterator[list[Sample]]:
    """Batches of conversations with the target's own replies, behind those of the steps that are done."""
    replies = [(question, reply) for question, reply in json.loads((work / REPLIES_FILE).read_text())]
    source = OwnReplySource(replies, PracticeSource(corpus, tokenizer, "tools", seed), tokenizer, seed)
    batches = endless_batches(source, stage.batch_tokens, seed)
    for _ in range(done_steps):
        next(batches)
    return batches


def scored_samples(model: gemma4.Model, tokenizer: Tokenizer, corpus: Corpus) -> list[Sample]:
    """Held-out questions with the target's own replies."""
    asked = corpus.held_out()[:: len(corpus.held_out()) // SCORED_QUESTIONS]
    replies = greedy_replies(model, tokenizer, asked)
    return [encode_conversation(tokenizer, [(question, reply)]) for question, _, reply in replies]


def distil(
    learner: Learner,
    batches: Iterator[list[Sample]],
    arrays: Callable[[list[Sample]], tuple[mx.array, ...]],
    score: Callable[[], list[float]],
    ring: Ring,
) -> None:
    """All steps that are left, with checkpoints, and scores by the first process.

    arrays: of this process's share of a batch. score: the held-out acceptance by draft.
    """
    started, losses = time.perf_counter(), list[float]()
    while not learner.is_done:
        losses.append(learner.learn(*arrays(next(batches)[ring.rank :: ring.size])))
        if learner.step % LOG_EVERY == 0:
            pace = (time.perf_counter() - started) / LOG_EVERY
            ring.log(f"step {learner.step} loss {sum(losses) / len(losses):.4f} s/step {pace:.2f}")
            started, losses = time.perf_counter(), []
        if learner.step % SAVE_EVERY == 0 or learner.is_done:
            learner.save()
        if ring.rank == 0 and (learner.step % SCORE_EVERY == 0 or learner.is_done):
            ring.log(f"held-out acceptance: {score()}")


def write_own_replies(model: gemma4.Model, tokenizer: Tokenizer, corpus: Corpus, path: Path, seed: int) -> None:
    """Let the target answer varied questions greedily, and write the (question, reply) pairs to `path`."""
    rng = random.Random(seed)
    refused = corpus.held_out_keys()
    asked = [
        (vary(rng.choice(e.ask), rng) if i else rng.choice(e.ask), e)
        for e in corpus.entries
        for i in range(WORDINGS)
    ]
    asked += [(out_of_scope(rng)[0], corpus.entries[0]) for _ in range(OUT_OF_SCOPE_QUESTIONS)]
    kept = [(question, entry) for question, entry in asked if normalised(question) not in refused]
    replies = greedy_replies(model, tokenizer, kept)
    path.write_text(json.dumps([(question, reply) for question, _, reply in replies if reply]))


@dataclass
class OwnReplySource:
    """A seeded source of conversations with the target's own replies."""

    replies: list[tuple[str, str]]
    drawn: SampleSource
    tokenizer: Tokenizer
    seed: int
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def draw(self, turn_count: int) -> Sample:
        """See SampleSource."""
        if self._rng.random() < DRAWN_SHARE:
            return self.drawn.draw(turn_count)
        return encode_conversation(self.tokenizer, self._rng.sample(self.replies, turn_count))


@dataclass(frozen=True, slots=True)
class DraftBatch:
    """A batch with the weight of every learned position, for each draft step."""

    tokens: mx.array
    """(rows, length) int32."""
    positions: mx.array
    """(n,) int32, in the flattened rows: the assistant learns the target's distribution after these."""
    targets: mx.array
    """(n,) int32: the actual next tokens."""
    step_weights: mx.array
    """(steps, n) float32: 0 where a round of drafting could not have started that many tokens earlier."""

    def arrays(self) -> tuple[mx.array, ...]:
        """The arrays in the order of the loss's arguments."""
        return self.tokens, self.positions, self.targets, self.step_weights


def make_draft_batch(samples: list[Sample], discount: float = STEP_DISCOUNT) -> DraftBatch:
    """Pad `samples`. Step k (from 1) at position p belongs to the round that starts after position p - k."""
    batch: Batch = make_batch(samples)
    positions, weights = np.array(batch.loss_rows), np.array(batch.loss_weights)
    learned = np.zeros(batch.tokens.size, bool)
    learned[positions[weights > 0]] = True
    steps = [
        weights * discount ** (k - 1) * learned[np.maximum(positions - k, 0)] for k in range(1, UNROLLED_STEPS + 1)
    ]
    return DraftBatch(
        batch.tokens, batch.loss_rows, batch.loss_targets, mx.array(np.stack(steps).astype(np.float32))
    )
