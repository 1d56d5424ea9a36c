"""The training of the pocket DSpark drafter, beside the engine that runs what it makes."""

from __future__ import annotations

import random
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine.decode import DecodeOptions, Session, prefill
from mlx_engine.loading.pair import load_pair
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.protocol.events import Load
from models import pocket
from models.pocket.training.conversations import encode_conversation
from models.pocket.training.dspark_config import new_dspark, save_dspark
from models.pocket.training.target_config import load_target
from models.pocket.training.tokenizer import load_tokenizer
from models.pocket.training.train_dspark import BLOCK, BlockBatch, block_logits, make_block_batch
from tests.mlx_engine.helpers import GREEDY, ScriptedControl, token_list

CONVERSATIONS = (
    [("How do I quit?", "Press ctrl+q.")],
    [("Hello", "Hello! I am Slipstream's pocket model."), ("What is a draft?", "A guess of the next tokens.")],
)


@pytest.fixture(scope="module")
def batch() -> BlockBatch:
    tokenizer = load_tokenizer(pocket.TARGET_FOLDER)
    return make_block_batch([encode_conversation(tokenizer, turns) for turns in CONVERSATIONS], random.Random(1))


def test_a_block_teaches_the_tokens_of_one_reply(batch: BlockBatch) -> None:
    tokenizer = load_tokenizer(pocket.TARGET_FOLDER)
    weights = np.array(batch.weights).reshape(*batch.anchors.shape, BLOCK)
    for row, turns in enumerate(CONVERSATIONS):
        sample = encode_conversation(tokenizer, turns)
        anchors = [int(at) for at, own in zip(np.array(batch.anchors[row]), weights[row]) if own.any()]
        assert anchors == [at for at in range(len(sample.ids) - 1) if all(sample.learned[at : at + 2])]
        for index, at in enumerate(anchors):
            taught = np.count_nonzero(weights[row, index])
            assert all(sample.learned[at : at + 1 + taught])
            after = at + 1 + taught
            assert taught == BLOCK or after == len(sample.ids) or not sample.learned[after]


@pytest.mark.slow
def test_the_engine_drafts_what_the_training_sees(tmp_path: Path, batch: BlockBatch) -> None:
    mx.random.seed(7)
    target = load_target(pocket.TARGET_FOLDER)
    dspark = new_dspark(target)
    dspark.markov_w2.weight = 0.02 * mx.random.normal(dspark.markov_w2.weight.shape)
    save_dspark(dspark, tmp_path)
    pair = load_pair(Load(str(pocket.TARGET_FOLDER), (str(tmp_path),)), lambda event: None)
    assert pair.refusals == []
    (drafter,) = pair.drafters.values()
    assert drafter.name == "dspark"

    places = [(0, 0), (1, 2), (1, 9)]
    row_tokens, anchors = np.array(batch.tokens), np.array(batch.anchors)
    for row, index in places:
        committed = row_tokens[row, : anchors[row, index] + 1].tolist()
        prefix = PrefixCache(pair.target)
        prefix.resume(committed)
        options = DecodeOptions(GREEDY, frozenset(), 9, ScriptedControl([BLOCK]))
        frontier = prefill(Session(pair.target, [drafter], prefix), options, lambda done_tokens: None)
        assert frontier
        drafts = token_list(drafter.propose(committed, frontier, prefix.cache, BLOCK, GREEDY).tokens)

        # The training corrects each slot by the token that came, so the drafts are put there first.
        tokens = mx.array([[*committed, *drafts, 0]])
        _, logits, _ = block_logits(dspark, target, tokens, mx.array([[len(committed) - 1]]))
        assert token_list(mx.argmax(logits[0], axis=-1)) == drafts
