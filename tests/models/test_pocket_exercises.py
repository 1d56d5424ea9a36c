"""What the pocket model practises: copying from the conversation, and calls of its two tools."""

from __future__ import annotations

import json
import random
import re
import string

import pytest

from mlx_engine.engine import Engine
from mlx_engine.protocol import events
from mlx_engine.protocol.events import Generate, Message, SamplingOptions
from mlx_engine.speculation.steering import ReplyControl
from mlx_engine.text.prompt import ChatFormat
from models import pocket
from models.pocket.training.copied_texts import CopiedTexts
from models.pocket.training.copying import SHARES, Copying
from models.pocket.training.lessons import load_corpus
from models.pocket.training.practice import PracticeSource
from models.pocket.training.tokenizer import CONTROL_TOKENS, load_tokenizer
from models.pocket.training.tool_lessons import DRAFT_LENGTH, MEMORY, ToolLessons, declared, load_tools
from models.pocket.training.turns import encode_turns
from models.pocket.training.wordings import Wordings, load_wordings
from tests.cases import cases

CORPUS = load_corpus()
TOKENIZER = load_tokenizer(pocket.TARGET_FOLDER)
WORDINGS = [
    pytest.param(wordings, id=f"{name}-{kind}")
    for name in ("copying", "tools")
    for kind, wordings in load_wordings(name).items()
]


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


def test_the_tokenizer_has_the_marks_that_training_gives_it() -> None:
    vocab = TOKENIZER.get_vocab()
    assert {spelling: vocab.get(spelling) for spelling in CONTROL_TOKENS.values()} == {
        spelling: id for id, spelling in CONTROL_TOKENS.items()
    }


@pytest.mark.parametrize("name", [MEMORY, DRAFT_LENGTH])
def test_a_turn_with_a_call_is_what_the_engine_writes(name: str) -> None:
    chat, rng = ChatFormat(pocket.TARGET_FOLDER), random.Random(2)
    for _ in range(10):
        turn = ToolLessons().draw(rng, [name])
        sample = encode_turns(TOKENIZER, [turn], declared(load_tools()))
        question = turn[0][0].removeprefix("<|turn>user\n").partition("<turn|>")[0]
        user = Message("user", question)
        prompt = chat.render([user], tools=load_tools()).ids
        assert sample.ids[: len(prompt)] == prompt
        decoder = chat.reply_decoder(has_tools=True)
        decoder.add(TOKENIZER.encode(turn[1][0], add_special_tokens=False).ids)
        (call,) = decoder.calls
        assert call.name == name
        result = re.findall(r'<\|"\|>(.*)<\|"\|>', turn[2][0])[0]
        messages = [user, Message("assistant", "", calls=(call,)), Message("tool", result, call_id=call.id)]
        prompt = chat.render(messages, tools=load_tools()).ids
        assert sample.ids[: len(prompt)] == prompt
        assert TOKENIZER.decode(sample.ids[len(prompt) :], skip_special_tokens=False) == turn[3][0]


def test_practice_draws_the_same_again_by_its_seed() -> None:
    one, two = (PracticeSource(CORPUS, TOKENIZER, 5) for _ in range(2))
    assert [one.draw(turns) for turns in (1, 2, 4, 9)] == [two.draw(turns) for turns in (1, 2, 4, 9)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(events.Load(str(pocket.TARGET_FOLDER), (str(pocket.DRAFTER_FOLDER),)), lambda event: None)


def ask(engine: Engine, *messages: Message, has_tools: bool = False) -> tuple[str, tuple[events.ToolCall, ...]]:
    """The greedy reply: its text and its calls."""
    said: list[events.Round | events.Finished] = []
    engine._emit = lambda event: said.append(event) if isinstance(event, events.Round | events.Finished) else None
    tools = load_tools() if has_tools else ()
    request = Generate(1, messages, SamplingOptions(temperature=0), max_tokens=160, tools=tools)
    engine.generate(request, ReplyControl("auto"))
    return "".join(event.text for event in said), tuple(call for event in said for call in event.calls)


@pytest.mark.slow
def test_it_copies_words_that_it_never_copied_in_training(engine: Engine) -> None:
    copying, rng = Copying(CORPUS, is_held_out=True), random.Random(3)
    asked = [copying.draw(rng, "repeat") for _ in range(cases(12, 40))]
    right = [ask(engine, Message("user", question))[0] == answer for question, answer in asked]
    assert sum(right) >= 0.6 * len(right)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "name", "arguments", "result", "number"),
    [
        ("Can you check the memory use?", MEMORY, {}, "7.4 GB in use", "7.4 GB"),
        ("use 9 as the draft length", DRAFT_LENGTH, {"length": 9}, "draft length 9", "9"),
        ("Could you draft three tokens per round?", DRAFT_LENGTH, {"length": 3}, "ok", "3"),
    ],
)
def test_it_calls_its_tools_and_says_what_came_back(
    engine: Engine, question: str, name: str, arguments: dict[str, int], result: str, number: str
) -> None:
    user = Message("user", question)
    text, calls = ask(engine, user, has_tools=True)
    (call,) = calls
    assert (text, call.name, json.loads(call.arguments)) == ("", name, arguments)
    back = Message("tool", result, call_id=call.id)
    text, calls = ask(engine, user, Message("assistant", "", calls=(call,)), back, has_tools=True)
    assert calls == ()
    assert number in text


@pytest.mark.slow
def test_without_tools_it_calls_none(engine: Engine) -> None:
    for question in ("Can you check the memory use?", "use 9 as the draft length"):
        text, calls = ask(engine, Message("user", question))
        assert text
        assert calls == ()
