"""Anthropic's SDK for Python against the server on the loopback address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import pytest
from msgspec.structs import replace

from mlx_engine.protocol.events import Generate, ToolCall
from tests.app.serve.serving import HeldEngine, Served, serving
from tests.patience import PATIENCE_S

TOOLS: Any = [{"name": "look", "description": "Look.", "input_schema": {"type": "object"}}]
HI: Any = [{"role": "user", "content": "Hi there"}]


class CallingEngine(HeldEngine):
    """Thinks, calls a tool, and says what came of it."""

    dies = False

    def generate(self, request: Generate) -> None:
        """Answer at once."""
        super().generate(request)
        self.begin()
        if self.dies:
            self.say("Half an")
            self.die()
        elif request.tools and request.messages[-1].role != "tool":
            self.say("", thinking="Where?")
            self.say("I look.")
            self.emit(replace(self.round(""), calls=(ToolCall("look", '{"at":"the sky"}', "call_1a"),)))
            self.finish()
        else:
            self.say(f"There is {request.messages[-1].text}.")
            self.finish()


@contextmanager
def client_of(served: Served) -> Iterator[anthropic.Anthropic]:
    """The SDK, without a person's proxies."""
    http = httpx2.Client(trust_env=False, timeout=PATIENCE_S)
    with anthropic.Anthropic(api_key="any", base_url=served.url, http_client=http, max_retries=0) as client:
        yield client


@pytest.fixture
def engine() -> CallingEngine:
    return CallingEngine()


@pytest.fixture
def client(engine: CallingEngine) -> Iterator[anthropic.Anthropic]:
    with serving(engine) as served, client_of(served) as client:
        yield client


def test_a_tool_is_called_and_its_result_goes_back(client: anthropic.Anthropic, engine: CallingEngine) -> None:
    asked: Any = {"model": "claude-opus-5-5", "max_tokens": 100, "tools": TOOLS}
    with client.messages.stream(messages=HI, **asked) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    assert {"text", "input_json", "thinking", "message_stop"} <= set(kinds)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    call = message.content[-1]
    assert call.type == "tool_use"
    assert (call.name, call.input, message.stop_reason) == ("look", {"at": "the sky"}, "tool_use")
    assert message.model == "claude-opus-5-5"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "a cloud"}
    conversation = [*HI, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answer = client.messages.create(messages=conversation, **asked)
    assert [block.to_dict() for block in answer.content] == [{"type": "text", "text": "There is a cloud."}]
    assert answer.usage.output_tokens > 0
    request = engine.requests[-1]
    assert [message.role for message in request.messages] == ["user", "assistant", "tool"]
    assert request.messages[1].thinking == "Where?"
    assert request.messages[2].call_id == request.messages[1].calls[0].id


def test_both_ways_give_the_same_answer_and_usage(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "any", "max_tokens": 100, "messages": HI}
    whole: anthropic.types.Message = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        assert stream.get_final_text() == "There is Hi there."
        streamed = stream.get_final_message()
    assert [block.to_dict() for block in whole.content] == [{"type": "text", "text": "There is Hi there."}]
    assert streamed.usage.to_dict() == whole.usage.to_dict()
    assert whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0) == 12


def test_tokens_are_counted_and_models_listed(client: anthropic.Anthropic) -> None:
    assert client.messages.count_tokens(model="any", messages=HI, tools=TOOLS).input_tokens == 2
    assert [model.id for model in client.models.list()] == ["fake"]


def test_an_engine_that_dies_in_mid_stream_is_an_error(client: anthropic.Anthropic, engine: CallingEngine) -> None:
    engine.dies = True
    with (
        client.messages.stream(model="any", max_tokens=100, messages=HI) as stream,
        pytest.raises(anthropic.APIStatusError, match="engine"),
    ):
        stream.get_final_message()
    engine.dies = False
    assert client.messages.create(model="any", max_tokens=100, messages=HI).stop_reason == "end_turn"
