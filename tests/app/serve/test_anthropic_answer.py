"""Answers as the Python SDK of Anthropic reads them, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anthropic
import httpx2
import pytest
from pydantic import BaseModel

from app.serve.answer import AnswerPiece, EndReason
from app.serve.dialects.anthropic import STOP_REASONS, AnthropicMessages
from app.serve.errors import EngineFailedError, ServeError, TooLongError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import Message, ToolCall
from tests.app.serve.scripted import HEAD, answer_of, events_of

CALLS = (ToolCall("look", '{"at":"größe","deep":[1,{"x":null}]}', "call_a"), ToolCall("look", "{}", "call_b"))
TOOLS: Any = [{"name": "look", "input_schema": {"type": "object"}}]
HI: Any = [{"role": "user", "content": "Hi"}]


class Script:
    """What the server answers, and what it was asked."""

    def __init__(
        self, pieces: Sequence[AnswerPiece], reason: EndReason = "stop", error: ServeError | None = None
    ) -> None:
        """error: in place of the answer if the prompt is too long, else of the stream's end."""
        self._answer = answer_of(pieces, reason, "END" if reason == "stop_string" else None)
        self._pieces, self._reason, self._error = pieces, reason, error
        self.asked: list[AnswerRequest] = []

    def respond(self, request: httpx2.Request) -> httpx2.Response:
        """For a client's transport."""
        dialect = AnthropicMessages()
        try:
            self.asked.append(dialect.read(json.loads(request.content)))
            if isinstance(self._error, TooLongError):
                raise self._error
        except ServeError as error:
            return httpx2.Response(error.status, json=dialect.error(error))
        if request.url.path.endswith("count_tokens"):
            return httpx2.Response(200, json={"input_tokens": HEAD.prompt_tokens})
        if not self.asked[-1].is_streamed:
            return httpx2.Response(200, json=dialect.whole(self.asked[-1], HEAD, self._answer))
        return httpx2.Response(200, content=self.stream(), headers={"content-type": "text/event-stream"})

    def stream(self) -> bytes:
        """All that is sent."""
        stream = AnthropicMessages().stream(AnswerRequest(messages=(Message("user", "Hi"),)), HEAD)
        written = stream.begin()
        for piece in self._pieces:
            written += stream.wait() + stream.add(piece)
        return written + (stream.fail(self._error) if self._error else stream.end(self._answer))

    def client(self) -> anthropic.Anthropic:
        """The SDK, connected to this script."""
        return anthropic.Anthropic(
            api_key="local",
            base_url="http://127.0.0.1",
            max_retries=0,
            http_client=httpx2.Client(transport=httpx2.MockTransport(self.respond)),
        )


def both(script: Script, **options: Any) -> anthropic.types.Message:
    """The answer, whole; what is streamed must be the same."""
    with script.client() as client:
        asked: Any = {"model": "gemma-4", "max_tokens": 100, "messages": HI, **options}
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            for _ in stream:
                pass
            streamed = stream.get_final_message()
    assert isinstance(whole, anthropic.types.Message)
    assert streamed.to_dict() | {"slipstream": None} == whole.to_dict() | {"slipstream": None}
    return whole


def test_a_text_arrives_with_its_usage_and_what_drafting_did() -> None:
    message = both(Script([AnswerPiece("Hel"), AnswerPiece(), AnswerPiece("lo.")]))
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hello."}]
    assert message.id == "msg_5f3a"
    assert message.model == "gemma-4"
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (10, 20)
    assert message.usage.output_tokens == 12
    assert message.usage.output_tokens_details
    assert message.usage.output_tokens_details.thinking_tokens == 4
    slipstream: Any = message.to_dict()["slipstream"]
    assert (slipstream["drafted_tokens"], slipstream["accepted_tokens"], slipstream["speedup"]) == (16, 8, 2.1)


def test_thoughts_text_and_calls_are_blocks_and_come_back_as_they_were() -> None:
    script = Script(
        [AnswerPiece(thinking="Well, "), AnswerPiece("Loo", "so."), AnswerPiece("king.", calls=CALLS)],
        "tool_calls",
    )
    message = both(script, tools=TOOLS)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert message.stop_reason == "tool_use"
    assert [block.input for block in message.content if block.type == "tool_use"] == [
        json.loads(call.arguments) for call in CALLS
    ]
    results: Any = [
        {"type": "tool_result", "tool_use_id": call.id, "content": f"result {call.id}"} for call in CALLS
    ]
    again: Any = [*HI, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    both(script, messages=again, tools=TOOLS)
    reply, first, second = script.asked[-1].messages[1:]
    assert (reply.text, reply.thinking) == ("Looking.", "Well, so.")
    assert [json.loads(call.arguments) for call in reply.calls] == [json.loads(call.arguments) for call in CALLS]
    assert [(first.call_id, first.text), (second.call_id, second.text)] == [
        (reply.calls[0].id, "result call_a"),
        (reply.calls[1].id, "result call_b"),
    ]


def test_an_empty_answer_has_an_empty_text() -> None:
    message = both(Script([]))
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": ""}]


@pytest.mark.parametrize("reason", STOP_REASONS)
def test_why_it_ended_is_said_in_words_that_clients_know(reason: EndReason) -> None:
    message = both(Script([AnswerPiece("Hi")], reason))
    assert message.stop_reason == STOP_REASONS[reason]
    assert message.stop_sequence == ("END" if reason == "stop_string" else None)


def test_a_schema_is_asked_for_as_the_sdk_writes_it() -> None:
    class Title(BaseModel):
        title: str

    script = Script([AnswerPiece('{"title": "Hi"}')])
    with script.client() as client:
        message = client.messages.parse(model="gemma-4", max_tokens=100, messages=HI, output_format=Title)
    assert message.parsed_output == Title(title="Hi")
    assert json.loads(script.asked[0].schema or "")["required"] == ["title"]


def test_tokens_are_counted() -> None:
    script = Script([])
    with script.client() as client:
        counted = client.messages.count_tokens(model="gemma-4", messages=HI, tools=TOOLS)
    assert counted.input_tokens == 30
    assert script.asked[0].tools[0].name == "look"


def test_a_prompt_that_is_too_long_is_refused_in_words_that_make_clients_compact() -> None:
    with (
        Script([], error=TooLongError(40_000, 32_768)).client() as client,
        pytest.raises(
            anthropic.BadRequestError, match="prompt is too long: 40000 tokens > 32768 maximum"
        ) as caught,
    ):
        client.messages.create(model="gemma-4", max_tokens=1, messages=HI)
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["code"] == "context_length_exceeded"


def test_a_wrong_request_is_refused_with_its_field() -> None:
    with Script([]).client() as client, pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(model="gemma-4", max_tokens=0, messages=HI)
    body: Any = caught.value.body
    assert body["error"]["param"] == "max_tokens"


def test_a_failure_in_mid_stream_is_an_error_and_no_end() -> None:
    script = Script([AnswerPiece("Hel")], error=EngineFailedError("The engine ended."))
    with (
        script.client() as client,
        client.messages.stream(model="gemma-4", max_tokens=9, messages=HI) as stream,
        pytest.raises(anthropic.APIStatusError, match="The engine ended"),
    ):
        stream.get_final_message()
    assert b"message_stop" not in script.stream()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "not_found_error"), (413, "request_too_large"), (500, "api_error")],
)
def test_errors_have_the_names_of_the_api(status: int, kind: str) -> None:
    error = ServeError("No.")
    error.status = status
    assert AnthropicMessages().error(error)["error"]["type"] == kind


def test_events_come_in_the_order_that_all_clients_accept() -> None:
    script = Script([AnswerPiece(thinking="So."), AnswerPiece("Hi"), AnswerPiece(calls=CALLS[:1])], "tool_calls")
    events = [data for _, data in events_of(script.stream())]
    names = [event["type"] for event in events if event["type"] != "ping"]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    thought = [block[0], block[1], block[1], block[2]]
    assert names == ["message_start", *thought, *block, *block, "message_delta", "message_stop"]
    assert events[1]["type"] == "ping"
    assert [event["index"] for event in events if event["type"] == block[0]] == [0, 1, 2]
    assert events[0]["message"]["usage"]["input_tokens"] == 30
    delta = next(event for event in events if event["type"] == "message_delta")
    assert (delta["usage"]["input_tokens"], delta["usage"]["cache_read_input_tokens"]) == (10, 20)


def test_a_text_after_a_call_is_a_block_of_its_own() -> None:
    script = Script([AnswerPiece("One", calls=CALLS[:1]), AnswerPiece("two")], "cut_call")
    sent = script.stream().decode()
    assert sent.count('"content_block_start"') == sent.count('"content_block_stop"')
    assert sent.index("One") < sent.index("call_a") < sent.index("two")
