"""Whatever JSON a client sends is a request or a refusal that names a field; and streams say what answers say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serve.answer import AnswerPiece
from app.serve.dialect import Dialect
from app.serve.dialects.openai_chat import ChatCompletions
from app.serve.dialects.openai_completions import TextCompletions
from app.serve.dialects.openai_responses import Responses
from app.serve.errors import BadRequestError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import Generate, ToolCall
from tests.app.serve.recorded import clients, recorded_requests
from tests.app.serve.scripted import HEAD, answer_of, data_of, events_of, streamed
from tests.cases import cases


def names_in(value: Any) -> Iterator[str]:
    """All names of fields."""
    match value:
        case dict():
            yield from value
            for inner in value.values():
                yield from names_in(inner)
        case list():
            for inner in value:
                yield from names_in(inner)


OWN = {"slipstream", "draft", "prompt", "namespace", "instructions", "schema", "seed", "stop", "top_k", "top_p"}
NAMES = sorted(
    {name for client in clients() for _, body in recorded_requests(client) for name in names_in(body)} | OWN
)
TYPES = [
    "allowed_tools",
    "assistant",
    "auto",
    "function",
    "function_call",
    "function_call_output",
    "input_image",
    "item_reference",
    "json_object",
    "json_schema",
    "medium",
    "message",
    "namespace",
    "reasoning",
    "required",
    "text",
    "user",
]
TEXT = st.sampled_from(["", "Hi", "{}", '{"a": 1}', "\ud83d", *TYPES]) | st.text(max_size=3)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=30,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
        optional={"content": VALUE, "tool_calls": VALUE, "reasoning": VALUE, "type": TEXT},
    ),
    max_size=4,
)
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=8)


def check(dialect: Dialect, body: Mapping[str, Any]) -> None:
    request, error = attempt(dialect, body)
    if error:
        assert error.param
        assert json.dumps(dialect.error(error))
    if not request:
        return
    assert request.messages or request.prompt
    generate = Generate(1, request.messages, request.sampling, request.draft_length, request.max_tokens)
    assert msgspec.json.encode([generate, request.tools, request.schema, request.stop, request.model])
    assert dialect.stream(request, HEAD).begin()


def attempt(dialect: Dialect, body: Mapping[str, Any]) -> tuple[AnswerRequest | None, BadRequestError | None]:
    try:
        return dialect.read(body), None
    except BadRequestError as error:
        return None, error


@pytest.mark.parametrize("dialect", [ChatCompletions(), TextCompletions(), Responses()])
@settings(max_examples=cases(60, 1_000))
@given(body=BODIES)
def test_any_body_is_read_or_refused(dialect: Dialect, body: Mapping[str, Any]) -> None:
    check(dialect, body)


@settings(max_examples=cases(60, 1_000))
@given(messages=MESSAGES, rest=BODIES)
def test_any_messages_are_read_or_refused(messages: list[Any], rest: Mapping[str, Any]) -> None:
    check(ChatCompletions(), {**rest, "messages": messages})
    check(Responses(), {**rest, "input": messages})


CALL = st.builds(
    ToolCall, st.sampled_from(["read", "agents::close"]), st.just('{"a":1}'), st.text("abc", min_size=1)
)
PIECE = st.builds(
    AnswerPiece, st.text("ab\n é", max_size=3), st.text("ab", max_size=3), st.lists(CALL, max_size=2).map(tuple)
)


@settings(max_examples=cases(60, 1_000))
@given(pieces=st.lists(PIECE, max_size=6))
def test_streams_say_what_whole_answers_say(pieces: list[AnswerPiece]) -> None:
    answer = answer_of(pieces)
    chat, responses = ChatCompletions(), Responses()
    chat_request = chat.read({"messages": [{"role": "user", "content": "Hi"}]})

    deltas = [chunk["choices"][0]["delta"] for chunk in data_of(streamed(chat, chat_request, pieces))[:-1]]
    message = chat.whole(chat_request, HEAD, answer)["choices"][0]["message"]
    assert "".join(delta.get("content", "") for delta in deltas) == (message["content"] or "")
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == message.get("reasoning_content", "")
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert calls == [{"index": index} | call for index, call in enumerate(message.get("tool_calls", []))]

    request = responses.read({"input": "Hi"})
    *_, (_, last) = events_of(streamed(responses, request, pieces))
    assert contents(last["response"]) == contents(responses.whole(request, HEAD, answer))


def contents(response: dict[str, Any]) -> tuple[str, str, list[Any]]:
    """Thoughts, text and calls, however they are divided into items."""
    items = response["output"]
    thoughts = [part["text"] for item in items if item["type"] == "reasoning" for part in item["summary"]]
    texts = [part["text"] for item in items if item["type"] == "message" for part in item["content"]]
    calls = [
        (item.get("namespace"), item["name"], item["call_id"]) for item in items if item["type"] == "function_call"
    ]
    return "".join(thoughts), "".join(texts), calls


def test_long_lists_are_read() -> None:
    """A text or a list that is copied for every item makes this test noticeably slow."""
    count = 30_000
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    tools = [{"type": "function", "name": f"f{index}"} for index in range(count)]

    (joined,) = ChatCompletions().read({"messages": [{"role": "user", "content": "word"}] * count}).messages
    calls, _ = Responses().read({"input": [call] * count + [{"role": "user", "content": "Hi"}]}).messages
    request = Responses().read(
        {"input": "Hi", "tools": tools, "tool_choice": {"type": "allowed_tools", "tools": tools}}
    )

    assert len(joined.text) == count * len("word\n\n") - 2
    assert len(calls.calls) == len(request.tools) == count
