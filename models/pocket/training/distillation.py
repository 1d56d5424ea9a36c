"""The assistant's training data: the target's own replies, and the positions at which drafts are learned."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models import gemma4
from tokenizers import Tokenizer

from models.pocket.training.augment import vary
from models.pocket.training.batches import Batch, make_batch
from models.pocket.training.conversations import SampleSource, encode_conversation
from models.pocket.training.evaluate import greedy_replies
from models.pocket.training.lessons import Corpus, normalised
from models.pocket.training.out_of_scope import out_of_scope
from models.pocket.training.turns import Sample

UNROLLED_STEPS = 6
STEP_DISCOUNT = 0.9
"""Weight of each further draft step, which counts only if the steps before it were accepted."""
WORDINGS = 2
"""Of each lesson that the target answers; the first as in the corpus."""
OUT_OF_SCOPE_QUESTIONS = 150
DRAWN_SHARE = 0.5
"""Of the conversations, drawn as the target's own training drew them; the others are the target's replies."""


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
