"""Responses: items in, and the events in the order that every client accepts."""

from __future__ import annotations

from typing import Any

import pytest

from app.serve.answer import Answer, AnswerPiece, EndReason
from app.serve.dialects.openai_responses import Responses
from app.serve.errors import BadRequestError, EngineFailedError, ServeError, TooLongError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import Message, ToolCall
from tests.app.serve.scripted import HEAD, answer_of, events_of, streamed

RESPONSES = Responses()
CALLS = (ToolCall("read", '{"path":"a"}', "c1"), ToolCall("agents::close", "{}", "c2"))
PIECES = (
    AnswerPiece(thinking="Let me "),
    AnswerPiece(thinking="see."),
    AnswerPiece(text="Read"),
    AnswerPiece(text="ing."),
    AnswerPiece(calls=CALLS),
)


def read(*items: Any, **fields: Any) -> AnswerRequest:
    return RESPONSES.read({"model": "m", "input": list(items or ("Hi",)) if items else "Hi"} | fields)


def said(role: str, text: str) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "id": "msg_1", "role": role, "content": [{"type": kind, "text": text}]}


def called(name: str, id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": id, "name": name, "arguments": '{"a": 1}'} | fields


def result(id: str, output: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": output}


def names_of(stream: bytes) -> list[str | None]:
    return [name for name, _ in events_of(stream)]


def last_response(stream: bytes) -> dict[str, Any]:
    response: dict[str, Any] = events_of(stream)[-1][1]["response"]
    return response


def test_an_input_is_the_same_however_it_is_written() -> None:
    assert (
        read(instructions="Be brief.").messages
        == read(said("developer", "Be brief."), said("user", "Hi")).messages
        == read({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}).messages
        == (Message("system", "Be brief."), Message("user", "Hi"))
    )


def test_thoughts_a_text_and_calls_are_one_message_of_the_model() -> None:
    thoughts = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}

    _, reply, *rest = read(
        said("user", "Go"),
        thoughts,
        said("assistant", "Going."),
        called("a", "c1"),
        called("b", "c2", namespace="agents"),
        result("c1", "one"),
        result("c2", [{"type": "input_text", "text": "two"}, {"type": "input_image", "image_url": "data:"}]),
        said("assistant", "Gone."),
        said("user", "Again"),
    ).messages

    calls = (ToolCall("a", '{"a":1}', "c1"), ToolCall("agents::b", '{"a":1}', "c2"))
    assert reply == Message("assistant", "Going.", "Hm.", calls)
    assert rest == [
        Message("tool", "one", call_id="c1"),
        Message("tool", "two\n\n[an image, which cannot be read here]", call_id="c2"),
        Message("assistant", "Gone."),
        Message("user", "Again"),
    ]


def test_thoughts_begin_a_message_of_their_own() -> None:
    thoughts = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}], "summary": []}

    messages = read(said("user", "Go"), said("assistant", "One"), thoughts, said("assistant", "Two")).messages

    assert messages[1:] == (Message("assistant", "One"), Message("assistant", "Two", "Hm."))


@pytest.mark.parametrize("kind", ["web_search_call", "custom_tool_call", "compaction", "made_up"])
def test_items_of_other_kinds_are_left_out(kind: str) -> None:
    assert read(said("user", "Hi"), {"type": kind, "id": "x"}).messages == (Message("user", "Hi"),)


def test_namespaces_are_unfolded_and_the_default_one_has_no_name() -> None:
    tool = {"type": "function", "name": "run", "description": "Runs.", "strict": True, "parameters": {}}
    tools = [tool, {"type": "web_search"}]
    for name in ("shell", "functions"):
        tools.append({"type": "namespace", "name": name, "description": "x", "tools": [tool, {"type": "custom"}]})

    request = read(tools=tools, tool_choice={"type": "function", "name": "run", "namespace": "shell"})

    assert [tool.name for tool in request.tools] == ["run", "shell::run"]
    assert request.strict_tools == {"run", "shell::run"}
    assert request.tool_choice == request.tools[1]
    whole = RESPONSES.whole(request, HEAD, answer_of(PIECES))
    assert whole["tool_choice"] == {"type": "function", "name": "run"}


def test_the_format_of_the_text_is_a_schema() -> None:
    form = {"type": "json_schema", "name": "n", "strict": True, "schema": {"type": "object"}}

    assert read(text={"format": form, "verbosity": "low"}).schema == '{"type":"object"}'
    assert read(text={}).schema is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": ["Hi"]}, "input[0]"),
        ({"input": [{"type": 7}]}, "input[0].type"),
        ({"input": [{"type": "message", "role": "tool", "content": ""}]}, "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [called("", "c1")]}, "input[0].name"),
        ({"input": [called("f", "c1", arguments="[]")]}, "input[0].arguments"),
        ({"input": [called("f", "c1", namespace=7)]}, "input[0].namespace"),
        ({"input": [called("f", "c1")]}, "input"),
        ({"input": [result("c1", {"a": 1})]}, "input[0].output"),
        ({"instructions": 7}, "instructions"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "c"}}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": "json"}, "text"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ],
)
def test_malformed_requests_are_refused_by_the_field_to_change(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refusal:
        RESPONSES.read({"input": "Hi"} | fields)

    assert refusal.value.param == param


def test_the_events_of_a_stream_are_in_the_order_that_all_clients_accept() -> None:
    names = names_of(streamed(RESPONSES, read(), PIECES, "tool_calls"))

    assert [name for name in names if name != "response.in_progress"] == [
        "response.created",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        *2
        * (
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
        ),
        "response.completed",
    ]
    assert names[:2] == ["response.created", "response.in_progress"]


def test_events_are_numbered_and_say_their_type() -> None:
    events = events_of(streamed(RESPONSES, read(), PIECES))

    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    assert all(name == data["type"] for name, data in events)


def test_a_sign_of_life_is_an_event_because_comments_do_not_count_for_codex() -> None:
    stream = RESPONSES.stream(read(), HEAD)
    stream.begin()

    ((name, data),) = events_of(stream.wait())

    assert name == "response.in_progress"
    assert (data["sequence_number"], data["response"]["status"], data["response"]["output"]) == (
        2,
        "in_progress",
        [],
    )


def test_the_response_repeats_what_was_streamed_item_by_item() -> None:
    events = events_of(streamed(RESPONSES, read(), PIECES))
    response = events[-1][1]["response"]
    done = [data for name, data in events if name == "response.output_item.done"]
    added = [data for name, data in events if name == "response.output_item.added"]

    assert [data["item"] for data in done] == response["output"]
    assert [data["output_index"] for data in done] == [data["output_index"] for data in added] == [0, 1, 2, 3]
    assert [data["item"]["id"] for data in done] == [data["item"]["id"] for data in added]
    assert len({item["id"] for item in response["output"]}) == 4
    thoughts, message, first, second = response["output"]
    assert thoughts["summary"] == [{"type": "summary_text", "text": "Let me see."}]
    assert message["content"] == [{"type": "output_text", "text": "Reading.", "annotations": [], "logprobs": []}]
    assert (first["call_id"], first["name"], first["arguments"]) == ("c1", "read", '{"path":"a"}')
    assert "namespace" not in first
    assert (second["namespace"], second["name"]) == ("agents", "close")


def test_deltas_add_up_to_what_is_done() -> None:
    events = [data for _, data in events_of(streamed(RESPONSES, read(), PIECES))]

    for kind, field in [
        ("output_text", "text"),
        ("reasoning_summary_text", "text"),
        ("function_call_arguments", "arguments"),
    ]:
        done = [data for data in events if data["type"] == f"response.{kind}.done"]
        assert done
        for data in done:
            deltas = [
                other["delta"]
                for other in events
                if other["type"] == f"response.{kind}.delta" and other["item_id"] == data["item_id"]
            ]
            assert "".join(deltas) == data[field]


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("stop", "completed"),
        ("tool_calls", "completed"),
        ("stop_string", "completed"),
        ("cancelled", "completed"),
        ("length", "incomplete"),
        ("context", "incomplete"),
        ("cut_call", "incomplete"),
    ],
)
def test_an_answer_that_is_not_whole_is_incomplete(reason: EndReason, status: str) -> None:
    stream = streamed(RESPONSES, read(), PIECES[:3], reason)
    response = last_response(stream)

    assert names_of(stream)[-1] == f"response.{status}"
    assert response["status"] == response["output"][-1]["status"] == status
    assert (response["incomplete_details"] is None) is (status == "completed")


def test_stream_and_whole_agree() -> None:
    request = read(max_output_tokens=100, temperature=0)

    whole = RESPONSES.whole(request, HEAD, answer_of(PIECES, "tool_calls"))

    assert whole == last_response(streamed(RESPONSES, request, PIECES, "tool_calls"))
    assert whole["usage"] == {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 42,
    }
    assert whole["slipstream"]["accepted_tokens"] == 8
    assert (whole["max_output_tokens"], whole["temperature"]) == (100, 0)


@pytest.mark.parametrize("pieces", [(), (AnswerPiece(thinking="Hm."),)])
def test_an_answer_without_words_is_an_empty_message(pieces: tuple[AnswerPiece, ...]) -> None:
    assert last_response(streamed(RESPONSES, read(), pieces))["output"][-1]["content"][0]["text"] == ""


def test_thoughts_after_a_text_are_an_item_of_their_own() -> None:
    pieces = (AnswerPiece("One", "First."), AnswerPiece("Two", "Second."))

    output = last_response(streamed(RESPONSES, read(), pieces))["output"]

    assert [item["type"] for item in output] == ["reasoning", "message", "reasoning", "message"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineFailedError("The engine ended."), "server_error"), (TooLongError(9, 8), "context_length_exceeded")],
)
def test_an_answer_that_fails_is_not_completed(error: ServeError, code: str) -> None:
    stream = streamed(RESPONSES, read(), PIECES[:3], error=error)

    assert names_of(stream)[-1] == "response.failed"
    assert last_response(stream)["status"] == "failed"
    assert last_response(stream)["error"] == {"code": code, "message": str(error)}


def test_the_next_request_of_a_client_goes_on_from_the_answer() -> None:
    """What was sent comes back as the message that the engine remembers."""
    answer: Answer = answer_of(PIECES, "tool_calls")
    output = RESPONSES.whole(read(), HEAD, answer)["output"]

    _, reply, _ = read(said("user", "Hi"), *output, result("c1", "text")).messages

    assert reply == Message("assistant", answer.text, answer.thinking, answer.calls)


def test_a_text_behind_a_call_does_not_part_the_call_from_its_result() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    text = {"type": "message", "role": "assistant", "content": "Wait."}
    result = {"type": "function_call_output", "call_id": "c", "output": "done"}
    request = read({"role": "user", "content": "Go"}, call, text, result)
    assert request.messages[1:] == (
        Message("assistant", "Wait.", calls=(ToolCall("f", "{}", "c"),)),
        Message("tool", "done", call_id="c"),
    )
