"""Checks of requests: the same numbers as the reply's, at any time, on a thread of their own."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlx_engine import worker
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import ContextOverflowError, EmptyPromptError, RequestError
from mlx_engine.protocol.events import (
    Checked,
    CheckRequest,
    Failed,
    Generate,
    Message,
    SamplingOptions,
    Tool,
    ToolCall,
)
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.fakes.folders import write_pair
from tests.fakes.tool_folder import tool_folder
from tests.mlx_engine.rig import Rig, only
from tests.patience import PATIENCE_S

HI = Message("user", "How do I turn drafting off?")
TOOLS = (
    Tool("look", "Looks.", '{"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}'),
)

PANIC = "what somebody typed"


@pytest.fixture(scope="module")
def pocket() -> Rig:
    return Rig(TARGET_FOLDER, DRAFTER_FOLDER)


def test_a_check_says_what_the_reply_will_say(pocket: Rig) -> None:
    messages: tuple[Message, ...] = (Message("system", "Be brief."), HI)
    for turn in range(3):
        request = Generate(turn, messages, SamplingOptions(0), max_tokens=12)
        checked = pocket.engine.check.checked(request)
        emitted = pocket.ask(request)
        (started,) = only(events.Started, emitted)
        assert checked == Checked(turn, started.prompt_tokens, 4096)
        text = "".join(e.text for e in emitted if isinstance(e, events.Round | events.Finished))
        messages = (*messages, Message("assistant", text), HI)


def test_a_prompt_that_is_too_long_is_counted(pocket: Rig) -> None:
    request = Generate(1, (Message("user", "word " * 5000),))
    assert pocket.engine.check.checked(request).prompt_tokens > 5000
    with pytest.raises(ContextOverflowError):
        pocket.ask(request)


def test_a_prompt_that_is_many_times_too_long_is_not_encoded(pocket: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = pocket.engine._format
    words = "word " * (chat.longest_token * 4096 // 5 + 1)
    with monkeypatch.context() as patched:
        patched.setattr(chat, "encode", None)
        for request in (Generate(1, (Message("user", words),)), Generate(1, (), prompt=words)):
            assert pocket.engine.check.checked(request).prompt_tokens > 4096
    spaces = Generate(2, (Message("user", words[:-10]),))
    assert pocket.engine.check.checked(spaces).prompt_tokens > 4096


@pytest.mark.parametrize(
    ("fields", "words", "about"),
    [
        ({"max_tokens": 0}, "limit of 0", None),
        ({"draft_length": 17}, "Draft length 17", None),
        ({"sampling": SamplingOptions(temperature=-1)}, "Temperature", None),
        ({"schema": '{"not": {}}'}, '"not"', "schema"),
        ({"schema": '{"pattern": "(?=a)"}'}, r"the pattern \(\?=a\) is not supported, look-around", "schema"),
        ({"schema": "["}, "not valid JSON", "schema"),
        ({"tool_choice": "required"}, "no such tool", "tools"),
        ({"tools": TOOLS}, "cannot use tools", "tools"),
        ({"tools": (Tool("look", "", "["),)}, "not valid JSON", "tools.look"),
        (
            {"messages": (HI, Message("assistant", "", calls=(ToolCall("look", '{"at": "it"}'),)))},
            "cannot use tools",
            "messages",
        ),
        ({"messages": ()}, "empty", None),
        ({"prompt": ""}, "empty", None),
    ],
)
def test_what_cannot_be_answered_is_refused_before(
    pocket: Rig, fields: dict[str, Any], words: str, about: str | None
) -> None:
    with pytest.raises(RequestError, match=words) as refusal:
        pocket.engine.check.checked(msgspec.structs.replace(Generate(1, (HI,)), **fields))
    assert refusal.value.about == about


def test_a_reply_that_has_begun_must_match_the_schema(pocket: Rig) -> None:
    begun = Generate(1, (HI, Message("assistant", '{"on')), schema='{"type": "object"}')
    assert pocket.engine.check.checked(begun).prompt_tokens
    other = msgspec.structs.replace(begun, messages=(HI, Message("assistant", "Well")))
    with pytest.raises(RequestError, match="start of the reply does not match") as refusal:
        pocket.engine.check.checked(other)
    assert refusal.value.about == "messages"


@pytest.mark.slow
def test_a_reply_that_has_begun_with_text_cannot_be_a_call(tmp_path: Path) -> None:
    target, drafter = write_pair(tmp_path / "pair", 1024)
    rig = Rig(tool_folder(tmp_path / "target", source=target), drafter)
    request = Generate(1, (HI, Message("assistant", "Well")), tools=TOOLS, tool_choice="required")
    with pytest.raises(RequestError, match="has begun it with text") as refusal:
        rig.engine.check.checked(request)
    assert refusal.value.about == "messages"


def test_a_text_is_continued_without_the_template(pocket: Rig) -> None:
    request = Generate(1, (), SamplingOptions(0), max_tokens=8, prompt="Drafting means that a <end_of_turn>")
    emitted = pocket.ask(request)
    (started,) = only(events.Started, emitted)
    chat = pocket.engine._format
    ids = pocket.engine._prefix.tokens[: started.prompt_tokens]
    assert ids == [2, *chat.encode("Drafting means that a <end_of_turn>")]
    assert only(events.Finished, emitted)[0].reason in ("length", "stop")
    with pytest.raises(EmptyPromptError):
        chat.render_text("")


@pytest.mark.slow
@pytest.mark.parametrize("draft", [0, 3])
def test_a_required_call_is_made_in_its_form(tmp_path: Path, draft: int) -> None:
    target, drafter = write_pair(tmp_path / "pair", 1024)
    rig = Rig(tool_folder(tmp_path / "target", source=target), drafter)
    schema = {"type": "object", "properties": {"at": {"enum": ["here", "there"]}, "n": {"type": "integer"}}}
    tools = (Tool("look", "Looks.", json.dumps(schema | {"required": ["at"]})), Tool("wait", "Waits."))
    for seed in range(3):
        request = Generate(
            seed,
            (HI,),
            SamplingOptions(1.0, top_k=0, top_p=1.0, seed=seed),
            draft,
            max_tokens=300,
            tools=tools,
            tool_choice="required",
            chosen_tool="look",
            strict_tools=("look",),
        )
        emitted = rig.ask(request)
        done = [event for event in emitted if isinstance(event, events.Round | events.Finished)]
        calls = [call for event in done for call in event.calls]
        assert "".join(event.text for event in done) == ""
        assert (
            not any(event.refused_calls for event in done) or only(events.Finished, emitted)[0].reason == "length"
        )
        for call in calls:
            assert call.name == "look"
            assert json.loads(call.arguments)["at"] in ("here", "there")


class HeldCheck:
    """A pair's check that the test counts."""

    def checked(self, request: Generate) -> Checked:
        if request.max_tokens == 0:
            raise ContextOverflowError("too long")
        if request.max_tokens == 1:
            raise BaseException(PANIC)
        return Checked(request.id, 7, 9)


def test_checks_wait_for_the_pair_and_survive_faults(capfd: pytest.CaptureFixture[str]) -> None:
    answers: list[events.Event] = []
    has_come = threading.Semaphore(0)

    def emit(event: events.Event) -> None:
        answers.append(event)
        has_come.release()

    checks = worker.Checks(emit)
    thread = threading.Thread(target=checks.answer_all)
    thread.start()
    checks.begin_load()
    checks.add(CheckRequest(Generate(1, (HI,))))
    assert answers == [], "the pair is being loaded"
    checks.end_load(HeldCheck())  # type: ignore[arg-type]
    checks.add(CheckRequest(Generate(2, (HI,), max_tokens=0)))
    checks.add(CheckRequest(Generate(3, (HI,), max_tokens=1)))
    for _ in range(3):
        assert has_come.acquire(timeout=PATIENCE_S)
    checks.begin_load()
    checks.end_load(None)
    checks.add(CheckRequest(Generate(4, (HI,))))
    checks.end()
    thread.join(PATIENCE_S)
    assert answers == [
        Checked(1, 7, 9),
        Failed(2, "too long", "too_long"),
        Failed(3, "The request could not be checked (BaseException)."),
        Failed(4, worker.NOT_LOADED),
    ]
    assert PANIC not in capfd.readouterr().err
