"""What the pocket model is to practise: copying from the conversation, and calls of its two tools."""

from __future__ import annotations

import random
import re
import string

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Tokenizer

from mlx_engine.protocol.events import Message
from mlx_engine.text.prompt import ChatFormat
from models import pocket
from models.pocket.training.batches import make_batch
from models.pocket.training.conversations import ConversationSource
from models.pocket.training.copied_texts import CopiedTexts
from models.pocket.training.copying import SHARES, Copying
from models.pocket.training.fast_ops import attention, watched_scores
from models.pocket.training.guidance import BACK_HEADS, COPY_HEADS, guidance_loss, make_guide, sources
from models.pocket.training.lessons import load_corpus
from models.pocket.training.practice import SHARES as COURSE
from models.pocket.training.practice import SHARES_WITH_COPYING, PracticeSource
from models.pocket.training.target_config import LAYERS
from models.pocket.training.tokenizer import load_tokenizer
from models.pocket.training.tool_lessons import DRAFT_LENGTH, MEMORY, ToolLessons, declared, load_tools
from models.pocket.training.turns import answered, encode_turns
from models.pocket.training.wordings import Wordings, load_wordings

CORPUS = load_corpus()
WORDINGS = [
    pytest.param(wordings, id=f"{name}-{kind}")
    for name in ("copying", "tools")
    for kind, wordings in load_wordings(name).items()
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(pocket.TARGET_FOLDER)


def gaps(template: str) -> set[str | None]:
    return {field for _, field, _, _ in string.Formatter().parse(template)} - {None}


@pytest.mark.parametrize("wordings", WORDINGS)
def test_held_out_wordings_ask_for_the_same_and_are_never_trained(wordings: Wordings) -> None:
    assert len(wordings.held_out) >= 2
    assert len({frozenset(gaps(template)) for template in (*wordings.ask, *wordings.held_out)}) == 1
    trained, held_out = (
        {re.sub(r"[^a-z{}]", "", template.lower()) for template in templates}
        for templates in (wordings.ask, wordings.held_out)
    )
    assert not trained & held_out


def test_words_of_held_out_texts_are_in_no_trained_text() -> None:
    trained, held_out = CopiedTexts(CORPUS), CopiedTexts(CORPUS, is_held_out=True)
    assert not {word.lower() for word in trained.words} & {word.lower() for word in held_out.words}
    assert len(held_out.words) >= 200


@pytest.mark.parametrize("is_held_out", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in SHARES if kind != "count"])
def test_every_word_of_the_answer_is_in_the_question(kind: str, is_held_out: bool) -> None:
    copying, rng = Copying(CORPUS, is_held_out), random.Random(1)
    for _ in range(40):
        question, answer = copying.draw(rng, kind)
        assert all(word.strip('"') in question for word in answer.split()), (question, answer)


@pytest.mark.parametrize("name", [MEMORY, DRAFT_LENGTH])
def test_a_turn_with_a_call_is_what_the_engine_writes(name: str, tokenizer: Tokenizer) -> None:
    chat, rng = ChatFormat(pocket.TARGET_FOLDER), random.Random(2)
    for _ in range(10):
        turn = ToolLessons().draw(rng, [name])
        sample = encode_turns(tokenizer, [turn], declared(load_tools()))
        question = turn[0][0].removeprefix("<|turn>user\n").partition("<turn|>")[0]
        user = Message("user", question)
        prompt = chat.render([user], tools=load_tools()).ids
        assert sample.ids[: len(prompt)] == prompt
        decoder = chat.reply_decoder(has_tools=True)
        decoder.add(tokenizer.encode(turn[1][0], add_special_tokens=False).ids)
        (call,) = decoder.calls
        assert call.name == name
        result = re.findall(r'<\|"\|>(.*)<\|"\|>', turn[2][0])[0]
        messages = [user, Message("assistant", "", calls=(call,)), Message("tool", result, call_id=call.id)]
        prompt = chat.render(messages, tools=load_tools()).ids
        assert sample.ids[: len(prompt)] == prompt
        assert tokenizer.decode(sample.ids[len(prompt) :], skip_special_tokens=False) == turn[3][0]


def test_practice_draws_the_same_again_by_its_seed(tokenizer: Tokenizer) -> None:
    one, two, other = (
        PracticeSource(CORPUS, tokenizer, "review", 5, has_copying) for has_copying in (True, True, False)
    )
    drawn = [[source.draw(turns) for turns in (1, 2, 4, 9)] for source in (one, two, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_copying_the_first_stage_has_the_lessons_alone(tokenizer: Tokenizer) -> None:
    practice = PracticeSource(CORPUS, tokenizer, "lessons", 5)
    lessons = ConversationSource(CORPUS, tokenizer, 5)
    turns = (1, 2, 9) * 20
    assert [practice.draw(count) for count in turns] == [lessons.draw(count) for count in turns]


@pytest.mark.parametrize("has_copying", [False, True])
def test_every_stage_draws_what_is_new_in_it(tokenizer: Tokenizer, has_copying: bool) -> None:
    shares = SHARES_WITH_COPYING if has_copying else COURSE
    assert list(shares) == (["copying"] if has_copying else []) + ["lessons", "tools", "review"]
    assert all(sum(each.values()) == pytest.approx(1) for each in shares.values())
    assert any("copying" in each for each in shares.values()) == has_copying


def test_the_guide_points_at_the_token_that_is_to_be_said(tokenizer: Tokenizer) -> None:
    sample = encode_turns(tokenizer, [answered("Repeat this:\nred green red blue", "red green red blue")])
    found = dict(sources(sample))
    learned = [at for at, is_learned in enumerate(sample.learned) if is_learned]
    assert all(sample.ids[source] == sample.ids[position + 1] for position, source in found.items())
    first = found[learned[0] - 1]
    assert [found[at - 1] for at in learned] == list(range(first, first + len(learned))), (
        "in order, by what is before"
    )

    batch = make_batch([sample, sample])
    guide = make_guide([sample, sample], batch)
    length = batch.tokens.shape[1]
    rows, keys = np.array(guide.rows)[np.array(guide.weights) > 0], np.array(guide.keys)
    assert [(row % length, key) for row, key in zip(rows.tolist(), keys.tolist())] == [*found.items()] * 2
    assert guide.rows.shape == batch.loss_rows.shape


def test_heads_that_look_where_they_should_cost_nothing(tokenizer: Tokenizer) -> None:
    samples = [encode_turns(tokenizer, [answered("Repeat this:\nred green blue", "red green blue")])]
    batch = make_batch(samples)
    guide = make_guide(samples, batch)
    length = batch.tokens.shape[1]
    looks = np.zeros((LAYERS, 1, 4, length, length), np.float32)
    assert float(guidance_loss([mx.array(scores) for scores in looks], guide)) > 1
    for layer, head in BACK_HEADS:
        looks[layer, 0, head, np.arange(1, length), np.arange(length - 1)] = 50
    for layer, head in COPY_HEADS:
        for position, source in sources(samples[0]):
            looks[layer, 0, head, position, source] = 50
    assert float(guidance_loss([mx.array(scores) for scores in looks], guide)) < 1e-3


def test_attention_shows_its_scores_while_it_is_watched() -> None:
    keys = mx.ones((1, 1, 3, 2))
    with watched_scores() as seen:
        attention(mx.ones((1, 4, 3, 2)), keys, keys, None, 1.0, "causal")
    attention(mx.ones((1, 4, 3, 2)), keys, keys, None, 1.0, "causal")
    (scores,) = seen
    assert scores.shape == (1, 4, 3, 3)
    assert np.array(scores[0, 0] == 2).tolist() == np.tri(3, dtype=bool).tolist()
