"""OpenAI's own Python package reads the answers, through its strictest helpers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionMessageParam

from app.serve.answer import AnswerPiece, EndReason
from app.serve.dialect import Dialect
from app.serve.dialects.openai_chat import ChatCompletions
from app.serve.dialects.openai_completions import TextCompletions
from app.serve.dialects.openai_responses import Responses
from app.serve.errors import EngineFailedError, ServeError
from mlx_engine.protocol.events import ToolCall
from tests.app.serve.scripted import ScriptedEndpoint

DIALECTS: dict[str, Dialect] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/completions": TextCompletions(),
    "/v1/responses": Responses(),
}
HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
CALL = ToolCall("read", '{"path":"a"}', "c1")
PIECES = (
    AnswerPiece(thinking="Let me see."),
    AnswerPiece(text="Read"),
    AnswerPiece(text="ing."),
    AnswerPiece(calls=(CALL,)),
)
READ: Any = {"type": "function", "function": {"name": "read", "strict": True, "parameters": {"type": "object"}}}


@contextmanager
def client_of(
    pieces: Sequence[AnswerPiece], reason: EndReason = "stop", error: ServeError | None = None
) -> Iterator[openai.OpenAI]:
    endpoint = ScriptedEndpoint(DIALECTS, pieces, reason)
    endpoint.error = error
    transport = httpx2.MockTransport(endpoint.respond)
    with (
        httpx2.Client(transport=transport) as http,
        openai.OpenAI(base_url="http://here/v1", api_key="any", http_client=http, max_retries=0) as client,
    ):
        yield client


def test_chat_stream_helper() -> None:
    with client_of(PIECES, "tool_calls") as client:
        with client.chat.completions.stream(
            model="m", messages=HI, tools=[READ], stream_options={"include_usage": True}
        ) as stream:
            kinds = [event.type for event in stream]
        completion = stream.get_final_completion()

    (choice,) = completion.choices
    assert choice.message.content == "Reading."
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].id == "c1"
    assert choice.message.tool_calls[0].function.parsed_arguments == {"path": "a"}
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.total_tokens) == (30, 42)
    assert {"content.delta", "content.done", "tool_calls.function.arguments.done"} <= set(kinds)


def test_chat_whole_with_a_model_of_pydantic() -> None:
    class City(pydantic.BaseModel):
        name: str

    with client_of([AnswerPiece(text='{"name":"Oslo"}')]) as client:
        completion = client.chat.completions.parse(model="m", messages=HI, response_format=City)

    assert completion.choices[0].message.parsed == City(name="Oslo")
    assert completion.model_extra is not None
    assert completion.model_extra["slipstream"]["speedup"] == 2.1


def test_chat_thoughts_and_drafting_are_extras() -> None:
    with client_of(PIECES) as client:
        chunks = list(client.chat.completions.create(model="m", messages=HI, stream=True))

    thoughts = [(chunk.choices[0].delta.model_extra or {}).get("reasoning_content") for chunk in chunks]
    assert "Let me see." in thoughts
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["slipstream"]["rounds"] == 4


def test_completions() -> None:
    with client_of([AnswerPiece(text="two, "), AnswerPiece(text="three")], "length") as client:
        whole = client.completions.create(model="m", prompt="one, ")
        chunks = list(client.completions.create(model="m", prompt="one, ", stream=True))

    assert whole.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks) == "two, three"
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "length"


def test_responses_stream_helper() -> None:
    with client_of(PIECES) as client:
        with client.responses.stream(model="m", input="Hi") as stream:
            text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        response = stream.get_final_response()

    assert text == response.output_text == "Reading."
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert response.status == "completed"
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.input_tokens_details.cached_tokens) == (30, 20)
    assert response.model_extra is not None
    assert response.model_extra["slipstream"]["drafter"] == "assistant"


def test_responses_whole_with_a_model_of_pydantic() -> None:
    class City(pydantic.BaseModel):
        name: str

    with client_of([AnswerPiece(text='{"name":"Oslo"}')]) as client:
        response = client.responses.parse(model="m", input="Hi", text_format=City)

    assert response.output_parsed == City(name="Oslo")


def test_responses_are_complete_by_the_packages_own_types() -> None:
    with client_of(PIECES) as client:
        whole = client.responses.create(model="m", input="Hi", parallel_tool_calls=False)
        events = list(client.responses.create(model="m", input="Hi", stream=True))

    assert openai.types.responses.Response.model_validate(whole.to_dict()) == whole
    assert not whole.parallel_tool_calls
    for event in events:
        assert type(event).model_validate(event.to_dict()) == event


def test_responses_go_on_from_what_was_answered() -> None:
    with client_of(PIECES) as client:
        first = client.responses.create(model="m", input="Hi")
        result = {"type": "function_call_output", "call_id": "c1", "output": "text"}
        items: Any = [*(item.model_dump() for item in first.output), result]
        second = client.responses.create(model="m", input=items)

    assert second.output_text == "Reading."


def test_an_answer_that_fails_raises() -> None:
    with client_of(PIECES[:2], error=EngineFailedError("The engine ended.")) as client:
        chunks = client.chat.completions.create(model="m", messages=HI, stream=True)
        with pytest.raises(openai.APIError, match="The engine ended"):
            list(chunks)
        with client.responses.stream(model="m", input="Hi") as stream:
            kinds = [event.type for event in stream]

    assert kinds[-1] == "response.failed"


def test_refusals_are_shown_with_the_field_to_change() -> None:
    with client_of(PIECES) as client:
        for refused in (
            lambda: client.chat.completions.create(model="m", messages=HI, n=2),
            lambda: client.completions.create(model="m", prompt="one, ", n=2),
        ):
            with pytest.raises(openai.BadRequestError, match="more than one answer") as refusal:
                refused()
            assert refusal.value.param == "n"
        with pytest.raises(openai.BadRequestError, match="no answers are stored here") as refusal:
            client.responses.create(model="m", input="Hi", previous_response_id="resp_1")
    assert (refusal.value.param, refusal.value.type) == ("previous_response_id", "invalid_request_error")
