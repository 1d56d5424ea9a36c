"""A tool's call and its result through the engine: events out, and the next turn reads only the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlx_engine.network.prefix import PrefixCache
from mlx_engine.protocol import events
from mlx_engine.protocol.events import Generate, Message, Tool
from tests.fakes.dictated_target import DictatedTarget
from tests.fakes.folders import write_pair
from tests.mlx_engine.rig import Rig, only

pytestmark = pytest.mark.slow

TOOLS = (Tool("look", "Looks.", '{"type": "object", "properties": {"at": {"type": "string"}}}'),)
USER = Message("user", "Look at it.")
CALL, CALL_END, RESULT, QUOTE = 48, 49, 50, 52


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(*write_pair(tmp_path, 1024))


def dictate(rig: Rig, request: Generate, *parts: str | int) -> list[int]:
    """Make the reply to a request consist of these texts and marks; its tokens."""
    engine = rig.engine
    ids = [id for part in parts for id in (engine._format.encode(part) if isinstance(part, str) else [part])]
    prompt = engine._format.render(request.messages, tools=request.tools, known_replies=engine._known_replies)
    target = DictatedTarget(engine._target)
    target.script = dict(enumerate(ids, len(prompt.ids)))
    engine._target = target  # type: ignore[assignment]
    if not engine._prefix.tokens:
        engine._prefix = PrefixCache(target)
    return ids


@pytest.mark.parametrize("draft_length", [0, 4])
def test_a_call_and_its_result(rig: Rig, draft_length: int) -> None:
    request = Generate(1, (USER,), draft_length=draft_length, tools=TOOLS)
    ids = dictate(rig, request, "One moment.", CALL, "call:look{ at:", QUOTE, "it", QUOTE, "}", CALL_END, RESULT)
    emitted = rig.ask(request)
    done = [event for event in emitted if isinstance(event, events.Round | events.Finished)]
    (call,) = [call for event in done for call in event.calls]
    text = "".join(event.text for event in done)
    assert (call.name, json.loads(call.arguments), text) == ("look", {"at": "it"}, "One moment.")
    assert only(events.Finished, emitted)[0].reason == "stop"

    messages = (USER, Message("assistant", text, calls=(call,)), Message("tool", "seen", call_id=call.id))
    emitted = rig.ask(Generate(2, messages, draft_length=draft_length, max_tokens=2, tools=TOOLS))
    (started,) = only(events.Started, emitted)
    written = rig.engine._prefix.tokens[: started.prompt_tokens]
    begin = written.index(CALL) - ids.index(CALL)
    assert written[begin : begin + len(ids)] == ids, "as the model wrote it, odd spaces and all"
    assert started.cached_tokens >= begin + len(ids) - 2, "only the result is read"


def test_a_call_that_the_limit_cuts_off_is_text_with_the_reason(rig: Rig) -> None:
    request = Generate(1, (USER,), max_tokens=6, tools=TOOLS)
    dictate(rig, request, CALL, "call:look{at:", QUOTE, "it and much more of it")
    emitted = rig.ask(request)
    (finished,) = only(events.Finished, emitted)
    assert (finished.reason, finished.calls) == ("length", ())
    assert "cut off" in finished.refused_calls[0]
    assert finished.text.startswith("<|tool_call>call:")
    assert not any(done.calls for done in only(events.Round, emitted))
