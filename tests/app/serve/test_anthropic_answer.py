"""Answers as the Python SDK of Anthropic reads them, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx2
import pytest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.serve.answer import Answer, Drafting, EndReason, Piece, Usage
from app.serve.dialect import AnswerHead
from app.serve.dialects.anthropic import STOP_REASONS, AnthropicMessages
from app.serve.errors import EngineFailedError, ServeError, TooLongError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import ToolCall

HEAD = AnswerHead("c0ffee", 1_700_000_000, "gemma-4", 100)
USAGE = Usage(prompt_tokens=100, cached_tokens=60, disk_tokens=0, completion_tokens=20, thinking_tokens=5)
DRAFTING = Drafting("assistant", 24, 12, 8, 2.5, 1.9, 80.0, 0.4, 60, 0, 40, 0.0)
CALLS = (ToolCall("look", '{"at":"größe","deep":[1,{"x":null}]}', "call_a"), ToolCall("look", "{}", "call_b"))
TOOLS: Any = [{"name": "look", "input_schema": {"type": "object"}}]
HI: Any = [{"role": "user", "content": "Hi"}]


class Script:
    """What the server answers, and what it was asked."""

    def __init__(self, pieces: list[Piece], reason: EndReason = "stop", error: ServeError | None = None) -> None:
        self.pieces = pieces
        self.error = error
        self.asked: list[AnswerRequest] = []
        self.answer = Answer(
            text="".join(piece.text for piece in pieces),
            thinking="".join(piece.thinking for piece in pieces),
            calls=tuple(call for piece in pieces for call in piece.calls),
            reason=reason,
            stop_string="END" if reason == "stop_string" else None,
            usage=USAGE,
            drafting=DRAFTING,
        )

    async def respond(self, request: Request) -> Response:
        """As the server does."""
        dialect = AnthropicMessages()
        try:
            asked = dialect.read(await request.json())
            if isinstance(self.error, TooLongError):
                raise self.error
        except ServeError as error:
            return JSONResponse(dialect.error(error), error.status)
        self.asked.append(asked)
        if request.url.path.endswith("count_tokens"):
            return JSONResponse(dialect.counted(HEAD.prompt_tokens))
        if asked.is_streamed:
            return StreamingResponse(self._streamed(asked), media_type="text/event-stream")
        return JSONResponse(dialect.whole(asked, HEAD, self.answer))

    async def _streamed(self, asked: AnswerRequest) -> AsyncIterator[bytes]:
        for part in self.parts(asked):
            yield part

    def parts(self, asked: AnswerRequest) -> Iterator[bytes]:
        """What is sent, event by event."""
        stream = AnthropicMessages().stream(asked, HEAD)
        yield stream.begin()
        yield stream.wait()
        for piece in self.pieces:
            yield stream.add(piece)
            yield stream.wait()
        yield stream.fail(self.error) if self.error else stream.end(self.answer)

    def client(self) -> anthropic.AsyncAnthropic:
        """The SDK, connected to this script."""
        routes = [
            Route(path, self.respond, methods=["POST"]) for path in ("/v1/messages", "/v1/messages/count_tokens")
        ]
        return anthropic.AsyncAnthropic(
            api_key="local",
            base_url="http://127.0.0.1",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=httpx2.ASGITransport(Starlette(routes=routes))),
        )


async def both(script: Script, **options: Any) -> anthropic.types.Message:
    """The answer, whole; what is streamed must be the same."""
    async with script.client() as client:
        asked: Any = {"model": "gemma-4", "max_tokens": 100, "messages": HI, **options}
        whole = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            async for _ in stream:
                pass
            streamed = await stream.get_final_message()
    assert isinstance(whole, anthropic.types.Message)
    assert streamed.to_dict() | {"slipstream": None} == whole.to_dict() | {"slipstream": None}
    return whole


async def test_a_text_arrives_with_its_usage_and_what_drafting_did() -> None:
    message = await both(Script([Piece("Hel"), Piece(), Piece("lo.")]))
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hello."}]
    assert message.id == "msg_c0ffee"
    assert message.model == "gemma-4"
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (40, 60)
    assert message.usage.output_tokens == 20
    assert message.usage.output_tokens_details
    assert message.usage.output_tokens_details.thinking_tokens == 5
    slipstream: Any = message.to_dict()["slipstream"]
    assert (slipstream["drafted_tokens"], slipstream["accepted_tokens"], slipstream["speedup"]) == (24, 12, 1.9)


async def test_thoughts_text_and_calls_are_blocks_and_come_back_as_they_were() -> None:
    script = Script([Piece(thinking="Well, "), Piece("Loo", "so."), Piece("king.", calls=CALLS)], "tool_calls")
    message = await both(script, tools=TOOLS)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert message.stop_reason == "tool_use"
    assert [block.input for block in message.content if block.type == "tool_use"] == [
        json.loads(call.arguments) for call in CALLS
    ]
    results: Any = [
        {"type": "tool_result", "tool_use_id": call.id, "content": f"result {call.id}"} for call in CALLS
    ]
    again: Any = [*HI, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    await both(script, messages=again, tools=TOOLS)
    reply, first, second = script.asked[-1].messages[1:]
    assert (reply.text, reply.thinking) == ("Looking.", "Well, so.")
    assert [json.loads(call.arguments) for call in reply.calls] == [json.loads(call.arguments) for call in CALLS]
    assert [(first.call_id, first.text), (second.call_id, second.text)] == [
        (reply.calls[0].id, "result call_a"),
        (reply.calls[1].id, "result call_b"),
    ]


async def test_an_empty_answer_has_an_empty_text() -> None:
    message = await both(Script([]))
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": ""}]


@pytest.mark.parametrize("reason", STOP_REASONS)
async def test_why_it_ended_is_said_in_words_that_clients_know(reason: EndReason) -> None:
    message = await both(Script([Piece("Hi")], reason))
    assert message.stop_reason == STOP_REASONS[reason]
    assert message.stop_sequence == ("END" if reason == "stop_string" else None)


async def test_a_schema_is_asked_for_as_the_sdk_writes_it() -> None:
    class Title(BaseModel):
        title: str

    script = Script([Piece('{"title": "Hi"}')])
    async with script.client() as client:
        message = await client.messages.parse(model="gemma-4", max_tokens=100, messages=HI, output_format=Title)
    assert message.parsed_output == Title(title="Hi")
    assert json.loads(script.asked[0].schema or "")["required"] == ["title"]


async def test_tokens_are_counted() -> None:
    script = Script([])
    async with script.client() as client:
        counted = await client.messages.count_tokens(model="gemma-4", messages=HI, tools=TOOLS)
    assert counted.input_tokens == 100
    assert script.asked[0].tools[0].name == "look"


async def test_a_prompt_that_is_too_long_is_refused_in_words_that_make_clients_compact() -> None:
    async with Script([], error=TooLongError(40_000, 32_768)).client() as client:
        with pytest.raises(
            anthropic.BadRequestError, match="prompt is too long: 40000 tokens > 32768 maximum"
        ) as caught:
            await client.messages.create(model="gemma-4", max_tokens=1, messages=HI)
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["code"] == "context_length_exceeded"


async def test_a_wrong_request_is_refused_with_its_field() -> None:
    async with Script([]).client() as client:
        with pytest.raises(anthropic.BadRequestError) as caught:
            await client.messages.create(model="gemma-4", max_tokens=0, messages=HI)
    body: Any = caught.value.body
    assert body["error"]["param"] == "max_tokens"


async def test_a_failure_in_mid_stream_is_an_error_and_no_end() -> None:
    script = Script([Piece("Hel")], error=EngineFailedError("The engine ended."))
    async with script.client() as client:
        with pytest.raises(anthropic.APIStatusError, match="The engine ended"):
            async with client.messages.stream(model="gemma-4", max_tokens=9, messages=HI) as stream:
                await stream.get_final_message()
    assert b"message_stop" not in b"".join(script.parts(script.asked[0]))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "not_found_error"), (413, "request_too_large"), (500, "api_error")],
)
def test_errors_have_the_names_of_the_api(status: int, kind: str) -> None:
    error = ServeError("No.")
    error.status = status
    assert AnthropicMessages().error(error)["error"]["type"] == kind


def test_events_come_in_the_order_that_all_clients_accept() -> None:
    script = Script([Piece(thinking="So."), Piece("Hi"), Piece(calls=CALLS[:1])], "tool_calls")
    events = [
        json.loads(line.removeprefix("data: "))
        for part in script.parts(AnthropicMessages().read({"messages": HI}))
        for line in part.decode().splitlines()
        if line.startswith("data: ")
    ]
    names = [event["type"] for event in events if event["type"] != "ping"]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    thought = [block[0], block[1], block[1], block[2]]
    assert names == ["message_start", *thought, *block, *block, "message_delta", "message_stop"]
    assert events[1]["type"] == "ping"
    assert [event["index"] for event in events if event["type"] == block[0]] == [0, 1, 2]
    assert events[0]["message"]["usage"]["input_tokens"] == 100
    delta = next(event for event in events if event["type"] == "message_delta")
    assert (delta["usage"]["input_tokens"], delta["usage"]["cache_read_input_tokens"]) == (40, 60)


def test_a_text_after_a_call_is_a_block_of_its_own() -> None:
    script = Script([Piece("One", calls=CALLS[:1]), Piece("two")], "cut_call")
    sent = b"".join(script.parts(AnthropicMessages().read({"messages": HI}))).decode()
    assert sent.count('"content_block_start"') == sent.count('"content_block_stop"')
    assert sent.index("One") < sent.index("call_a") < sent.index("two")
