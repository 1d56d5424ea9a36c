"""What the assistant learns from: the target's own replies, and where in them a draft is learned."""

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
from models.pocket.training.conversations import ConversationSource, Sample, encode_conversation
from models.pocket.training.evaluate import greedy_replies
from models.pocket.training.lessons import Corpus, normalised
from models.pocket.training.out_of_scope import out_of_scope

UNROLLED_STEPS = 6
STEP_DISCOUNT = 0.9
"""Weight of each further draft step: it counts only if those before it were accepted."""
OUT_OF_SCOPE_QUESTIONS = 150
CORPUS_SHARE = 0.2
"""Of the conversations, drawn as the target's own training drew them; the others are the target's replies."""


def write_own_replies(model: gemma4.Model, tokenizer: Tokenizer, corpus: Corpus, path: Path, seed: int) -> None:
    """Have the target answer varied questions greedily, and keep the (question, reply) pairs in `path`."""
    rng = random.Random(seed)
    refused = corpus.held_out_keys()
    asked = [
        (vary(rng.choice(e.ask), rng) if i else rng.choice(e.ask), e) for e in corpus.entries for i in range(4)
    ]
    asked += [(out_of_scope(rng)[0], corpus.entries[0]) for _ in range(OUT_OF_SCOPE_QUESTIONS)]
    kept = [(question, entry) for question, entry in asked if normalised(question) not in refused]
    replies = greedy_replies(model, tokenizer, kept)
    path.write_text(json.dumps([(question, reply) for question, _, reply in replies if reply]))


@dataclass
class OwnReplySource:
    """A seeded source of conversations made of the target's own replies."""

    replies: list[tuple[str, str]]
    corpus_source: ConversationSource
    tokenizer: Tokenizer
    seed: int
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def draw(self, turn_count: int) -> Sample:
        """See SampleSource."""
        if self._rng.random() < CORPUS_SHARE:
            return self.corpus_source.draw(turn_count)
        return encode_conversation(self.tokenizer, self._rng.sample(self.replies, turn_count))


@dataclass(frozen=True, slots=True)
class DraftBatch:
    """A batch with, for each draft step, how much each learned place counts."""

    tokens: mx.array
    """(rows, length) int32."""
    places: mx.array
    """(n,) int32, into the flattened rows: the target's distribution after these is what is learned."""
    targets: mx.array
    """(n,) int32: the tokens that do follow."""
    step_weights: mx.array
    """(steps, n) float32: 0 where a round of drafting could not have started that many tokens earlier."""

    def arrays(self) -> tuple[mx.array, ...]:
        """In the order in which the loss takes them."""
        return self.tokens, self.places, self.targets, self.step_weights


def make_draft_batch(samples: list[Sample], discount: float = STEP_DISCOUNT) -> DraftBatch:
    """Pad `samples`. Step k (from 1) at place p belongs to the round that starts after place p - k."""
    batch: Batch = make_batch(samples)
    places, weights = np.array(batch.loss_rows), np.array(batch.loss_weights)
    learned = np.zeros(batch.tokens.size, bool)
    learned[places[weights > 0]] = True
    steps = [
        weights * discount ** (k - 1) * learned[np.maximum(places - k, 0)] for k in range(1, UNROLLED_STEPS + 1)
    ]
    return DraftBatch(
        batch.tokens, batch.loss_rows, batch.loss_targets, mx.array(np.stack(steps).astype(np.float32))
    )
