"""Chat completions: requests in every form that clients use, and answers that every client can read."""

from __future__ import annotations

from typing import Any

import pytest

from app.serve.answer import AnswerPiece, EndReason
from app.serve.dialects.openai_chat import ChatCompletions
from app.serve.errors import BadRequestError, EngineFailedError, TooLongError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import Message, ToolCall
from tests.app.serve.scripted import HEAD, answer_of, data_of, streamed

CHAT = ChatCompletions()
USER = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Well,"}
CALLS = (ToolCall("read", '{"path":"a"}', "c1"), ToolCall("read", '{"path":"b"}', "c2"))
PIECES = (
    AnswerPiece(thinking="Let me see."),
    AnswerPiece(text="Read"),
    AnswerPiece(text="ing."),
    AnswerPiece(calls=CALLS),
)


def read(*messages: dict[str, Any], **fields: Any) -> AnswerRequest:
    return CHAT.read({"model": "m", "messages": list(messages or (USER,))} | fields)


def deltas(stream: bytes) -> list[dict[str, Any]]:
    chunks = data_of(stream)[:-1]
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


@pytest.mark.parametrize(
    "content",
    [
        "Hi",
        ["Hi"],
        [{"type": "text", "text": "Hi"}],
        [{"text": "Hi", "type": "text", "cache_control": {"type": "ephemeral"}}],
        [{"type": "input_text", "text": "Hi"}, {"type": "text", "text": ""}],
    ],
)
def test_a_content_is_the_same_however_it_is_written(content: Any) -> None:
    assert read({"role": "user", "content": content, "name": "x"}).messages == (Message("user", "Hi"),)


def test_parts_are_paragraphs_and_pictures_are_named() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": "See:"}, picture, {"type": "hologram"}]

    (message,) = read({"role": "user", "content": content}).messages

    assert message.text == "See:\n\n[an image, which cannot be read here]\n\n[something that cannot be read here]"


def test_neighbours_of_one_role_are_joined_and_a_later_system_message_stays_where_it_is() -> None:
    messages = read(
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One"},
        {"role": "user", "content": "Two"},
        {"role": "system", "content": "Remember."},
        {"role": "assistant", "content": "Three"},
        {"role": "user", "content": "Four"},
    ).messages

    assert [(message.role, message.text) for message in messages] == [
        ("system", "Be brief.\n\nBe kind."),
        ("user", "One\n\nTwo"),
        ("system", "Remember."),
        ("assistant", "Three"),
        ("user", "Four"),
    ]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize(
    "arguments",
    ['{"b": [1, 2], "a": "x"}', '{"a":"x","b":[1,2]}', {"a": "x", "b": [1, 2]}, '{"a":"\\u0078","b":[1,2]} '],
)
def test_a_turn_with_a_call_is_the_same_however_a_client_gives_it_back(field: str, arguments: Any) -> None:
    call = {"id": "c1", "type": "function", "index": 0, "function": {"name": "f", "arguments": arguments}}
    reply: dict[str, Any] = {"role": "assistant", "content": None, field: "Hm.", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "name": "f", "content": [{"type": "text", "text": "42"}]}

    assert read(USER, reply, result).messages[1:] == (
        Message("assistant", "", "Hm.", (ToolCall("f", '{"a":"x","b":[1,2]}', "c1"),)),
        Message("tool", "42", call_id="c1", tool_name="f"),
    )


def test_thoughts_in_a_form_that_is_no_text_are_left_out() -> None:
    reply: dict[str, Any] = {
        "role": "assistant",
        "content": "Yes",
        "reasoning": {"details": []},
        "tool_calls": None,
    }

    assert read(USER, reply).messages[1] == Message("assistant", "Yes")


def test_a_reply_that_was_stopped_before_its_first_word_is_left_out() -> None:
    reply = {"role": "assistant", "content": "", "reasoning_content": "Hm."}

    assert read(USER, reply, USER, reply).messages == (Message("user", "Hi\n\nHi"),)


def test_halves_of_characters_are_replaced() -> None:
    """They have no bytes, so they could not even be sent to the engine."""
    (message,) = read({"role": "user", "content": "cut \ud83d"}).messages

    assert message.text == "cut \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("reason", "finish_reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("stop_string", "stop"),
        ("context", "length"),
        ("cut_call", "length"),
        ("cancelled", "stop"),
    ],
)
def test_every_answer_has_a_finish_reason_that_clients_know(reason: EndReason, finish_reason: str) -> None:
    *_, last, done = data_of(streamed(CHAT, read(), PIECES, reason))
    whole = CHAT.whole(read(), HEAD, answer_of(PIECES, reason))

    assert done == "[DONE]"
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish_reason}]
    assert whole["choices"][0]["finish_reason"] == finish_reason


def test_a_stream_has_the_role_first_and_each_call_whole() -> None:
    stream = streamed(CHAT, read(), PIECES)

    assert deltas(stream) == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Let me see."},
        {"content": "Read"},
        {"content": "ing."},
        {"tool_calls": [called(0, "c1", '{"path":"a"}')]},
        {"tool_calls": [called(1, "c2", '{"path":"b"}')]},
        {},
    ]
    for chunk in data_of(stream)[:-1]:
        assert chunk["id"] == "chatcmpl-5f3a"
        assert chunk["object"] == "chat.completion.chunk"
        assert (chunk["created"], chunk["model"]) == (1_790_000_000, "gemma-4")
        assert all(choice["index"] == 0 for choice in chunk["choices"])


def called(index: int, id: str, arguments: str) -> dict[str, Any]:
    return {"index": index, "id": id, "type": "function", "function": {"name": "read", "arguments": arguments}}


def test_indexes_of_calls_go_on_from_piece_to_piece() -> None:
    pieces = [AnswerPiece(calls=CALLS[:1]), AnswerPiece(calls=CALLS[1:])]

    calls = [delta["tool_calls"][0] for delta in deltas(streamed(CHAT, read(), pieces)) if "tool_calls" in delta]

    assert [call["index"] for call in calls] == [0, 1]


def test_signs_of_life_are_comments() -> None:
    stream = CHAT.stream(read(), HEAD)

    assert stream.wait() == b": keep-alive\n\n"
    assert stream.add(AnswerPiece()) == b""


def test_usage_comes_only_where_it_is_asked_for_and_drafting_always() -> None:
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 12,
        "total_tokens": 42,
        "prompt_tokens_details": {"cached_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }

    *chunks, last, _ = data_of(streamed(CHAT, read(stream_options={"include_usage": True}), PIECES))
    assert last["choices"] == []
    assert last["usage"] == usage
    assert last["slipstream"]["drafted_tokens"] == 16
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"

    *chunks, last, _ = data_of(streamed(CHAT, read(), PIECES))
    assert not any("usage" in chunk for chunk in [*chunks, last])
    assert last["slipstream"]["tokens_per_round"] == 3.0

    whole = CHAT.whole(read(), HEAD, answer_of(PIECES))
    assert whole["usage"] == usage
    assert whole["slipstream"]["speedup"] == 2.1


def test_an_answer_that_fails_has_neither_finish_reason_nor_done() -> None:
    *chunks, last = data_of(streamed(CHAT, read(), PIECES[:2], error=EngineFailedError("The engine ended.")))

    assert last == {
        "error": {"message": "The engine ended.", "type": "server_error", "code": "engine_failed", "param": None}
    }
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)


def test_a_whole_answer_says_what_its_stream_says() -> None:
    message = CHAT.whole(read(), HEAD, answer_of(PIECES, "tool_calls"))["choices"][0]["message"]

    parts = deltas(streamed(CHAT, read(), PIECES, "tool_calls"))
    assert message["content"] == "".join(part.get("content", "") for part in parts)
    assert message["reasoning_content"] == "".join(part.get("reasoning_content", "") for part in parts)
    assert [{"index": index} | call for index, call in enumerate(message["tool_calls"])] == [
        call for part in parts for call in part.get("tool_calls", [])
    ]


def test_what_an_answer_has_not_is_left_out() -> None:
    assert CHAT.whole(read(), HEAD, answer_of([]))["choices"][0]["message"] == {"role": "assistant", "content": ""}
    calls = CHAT.whole(read(), HEAD, answer_of([AnswerPiece(calls=CALLS)]))["choices"][0]["message"]
    assert calls["content"] is None
    assert "reasoning_content" not in calls


def test_a_conversation_that_is_too_long_is_refused_in_the_words_that_make_clients_compact() -> None:
    error = CHAT.error(TooLongError(40_000, 32_768))["error"]

    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is 32768 tokens" in error["message"]
    assert "resulted in 40000 tokens" in error["message"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "messages")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [None]}, "messages[0]"),
        ({"messages": [USER, {"role": "narrator", "content": "x"}]}, "messages[1].role"),
        ({"messages": [USER, {"content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"text": "x"}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x", 7]}]}, "messages[0].content[1]"),
        ({"messages": [{"role": "user", "content": [{"text": 7}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": 7, "content": ""}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}, "messages"),
        ({"messages": [USER, {"role": "tool", "tool_call_id": "a", "content": "lost"}]}, "messages"),
        ({"messages": [USER, REPLY, {"role": "tool", "tool_call_id": "a", "content": "lost"}, USER]}, "messages"),
        ({"messages": [REPLY]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}, REPLY]}, "messages"),
        ({"messages": [USER], "stop": 5}, "stop"),
        ({"messages": [USER], "model": 7}, "model"),
        ({"messages": [USER], "stream": "yes"}, "stream"),
        ({"messages": [USER], "stream_options": []}, "stream_options"),
        ({"messages": [USER], "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"messages": [USER], "n": 2}, "n"),
        ({"messages": [USER], "n": True}, "n"),
        ({"messages": [USER], "logprobs": True}, "logprobs"),
        ({"messages": [USER], "top_logprobs": 3}, "top_logprobs"),
        ({"messages": [USER], "logit_bias": {"5": -100}}, "logit_bias"),
        ({"messages": [USER], "functions": [{"name": "f"}]}, "functions"),
        ({"messages": [USER], "modalities": ["text", "audio"]}, "modalities"),
    ],
)
def test_malformed_requests_are_refused_by_the_field_to_change(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refusal:
        CHAT.read(body)

    assert refusal.value.param == param
    assert CHAT.error(refusal.value)["error"].keys() == {"message", "type", "code", "param"}


def test_what_nobody_needs_is_ignored() -> None:
    plain = read()

    assert plain == read(
        store=False,
        metadata={"a": "b"},
        user="u",
        n=1,
        logprobs=False,
        logit_bias={},
        presence_penalty=0.5,
        frequency_penalty=1.0,
        parallel_tool_calls=True,
        prompt_cache_key="k",
        service_tier="auto",
        client_metadata=[7],
        tools=[],
        tool_choice="auto",
        response_format={"type": "text"},
        stream=None,
        stop=None,
    )


def test_what_the_model_refused_to_do_is_what_it_said() -> None:
    part = {"type": "refusal", "refusal": "No."}
    for reply in ({"content": [part]}, {"content": None, "refusal": "No."}):
        request = ChatCompletions().read(
            {"messages": [{"role": "user", "content": "Go"}, {"role": "assistant", **reply}]}
        )
        assert request.messages[1] == Message("assistant", "No.")


def test_a_result_has_the_id_of_its_call() -> None:
    def read_results(*ids: str, call_id: str = "c1") -> AnswerRequest:
        calls = [{"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}]
        results = [{"role": "tool", "content": "x", "tool_call_id": id} for id in ids]
        return read(messages=[USER, {"role": "assistant", "tool_calls": calls}, *results])

    assert read_results("c1").messages[-1].call_id == "c1"
    assert read_results("").messages[-1].call_id == ""
    assert read_results("c2", call_id="").messages, "a call without an id may have any"
    with pytest.raises(BadRequestError, match="the id of no call") as refusal:
        read_results("c2")
    assert refusal.value.param == "messages"
