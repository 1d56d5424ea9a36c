"""OpenAI's own Python package against the server: a turn with a call of a tool, and the turn after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from msgspec.structs import replace

from mlx_engine.protocol.events import Generate, Message, ToolCall
from tests.app.serve.serving import HeldEngine, serving
from tests.patience import PATIENCE_S

READ_PARAMETERS = {"type": "object", "properties": {"path": {"type": "string"}}}
CALL = ToolCall("read", '{"path": "a.txt", "lines": 5}', "call_1")


class AgentsEngine(HeldEngine):
    """Thinks, says something and calls a tool; answers its result."""

    def generate(self, request: Generate) -> None:
        """Answer at once."""
        super().generate(request)
        self.begin()
        if request.messages[-1].role == "tool":
            self.say("It has five lines.")
        else:
            self.say("", thinking="A file, then.")
            self.say("Reading ")
            self.emit(replace(self.round("it."), calls=(CALL,)))
        self.finish()


@pytest.fixture
def engine() -> AgentsEngine:
    return AgentsEngine()


@pytest.fixture
def client(engine: AgentsEngine) -> Iterator[openai.OpenAI]:
    with (
        serving(engine) as served,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0, timeout=PATIENCE_S) as client,
    ):
        yield client


def check_both_turns(engine: AgentsEngine) -> None:
    """The second request begins with the first one, then what the engine said, then the result."""
    first, second = engine.requests

    assert second.tools == first.tools
    assert second.messages == (
        *first.messages,
        Message(
            "assistant", "Reading it.", "A file, then.", (replace(CALL, arguments='{"lines":5,"path":"a.txt"}'),)
        ),
        Message("tool", "1 2 3 4 5", call_id="call_1"),
    )


def test_chat_completions(engine: AgentsEngine, client: openai.OpenAI) -> None:
    tools: Any = [
        {"type": "function", "function": {"name": "read", "strict": True, "parameters": READ_PARAMETERS}}
    ]
    messages: Any = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Read a.txt"}]

    with client.chat.completions.stream(model="m", messages=messages, tools=tools) as stream:
        reply = stream.get_final_completion().choices[0]
    assert reply.finish_reason == "tool_calls"

    given_back: Any = reply.message.to_dict()
    call = given_back["tool_calls"][0]
    call["function"]["arguments"] = json.dumps(json.loads(call["function"]["arguments"]), indent=2)
    messages[1] = {"role": "user", "content": [{"type": "text", "text": "Read a.txt"}]}
    messages += [given_back, {"role": "tool", "tool_call_id": call["id"], "content": "1 2 3 4 5"}]
    answer = client.chat.completions.create(model="m", messages=messages, tools=tools)

    assert answer.choices[0].message.content == "It has five lines."
    check_both_turns(engine)


def test_responses(engine: AgentsEngine, client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "read", "strict": True, "parameters": READ_PARAMETERS}]

    with client.responses.stream(model="m", instructions="Be brief.", input="Read a.txt", tools=tools) as stream:
        response = stream.get_final_response()
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]

    items: Any = [{"role": "user", "content": "Read a.txt"}, *(item.to_dict() for item in response.output)]
    items.append({"type": "function_call_output", "call_id": "call_1", "output": "1 2 3 4 5"})
    answer = client.responses.create(model="m", instructions="Be brief.", input=items, tools=tools)

    assert answer.output_text == "It has five lines."
    check_both_turns(engine)


def test_thoughts_of_chat_completions_come_in_the_field_that_clients_read(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True)
    )

    thoughts = [(chunk.choices[0].delta.model_extra or {}).get("reasoning_content") for chunk in chunks]
    assert [text for text in thoughts if text] == ["A file, then."]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
