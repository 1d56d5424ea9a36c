"""Tools and settings, which OpenAI's APIs have in common."""

from __future__ import annotations

from typing import Any

import pytest

from app.serve.dialects.openai_chat import ChatCompletions
from app.serve.errors import BadRequestError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import SamplingOptions, Tool

PATH = {"type": "object", "properties": {"path": {"type": "string"}}}
READ = {"type": "function", "function": {"name": "read", "description": "Reads a file.", "parameters": PATH}}
BASH = {"type": "function", "function": {"name": "bash", "strict": True}}
READ_TOOL = Tool("read", "Reads a file.", '{"type":"object","properties":{"path":{"type":"string"}}}')
BASH_TOOL = Tool("bash")


def read(**fields: Any) -> AnswerRequest:
    return ChatCompletions().read({"messages": [{"role": "user", "content": "Hi"}]} | fields)


def refused(**fields: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as refusal:
        read(**fields)
    return refusal.value


def test_tools_are_read_in_order_and_those_of_a_provider_are_left_out() -> None:
    request = read(tools=[{"type": "web_search"}, READ, {"name": "x"}, BASH, {"type": "custom", "custom": {}}])

    assert request.tools == (READ_TOOL, BASH_TOOL)
    assert request.strict_tools == {"bash"}
    assert request.tool_choice == "auto"


def test_a_tool_may_be_written_as_responses_write_it() -> None:
    flat = {"type": "function"} | READ["function"]  # type: ignore[operator]

    assert read(tools=[flat]).tools == (READ_TOOL,)


def test_a_tool_may_be_there_twice_if_it_is_the_same() -> None:
    assert read(tools=[READ, BASH, READ]).tools == (READ_TOOL, BASH_TOOL)


def test_the_order_of_a_schema_is_kept() -> None:
    schema = {"type": "object", "properties": {"z": {}, "a": {"enum": ["é"]}}}

    request = read(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})

    assert request.schema == '{"type":"object","properties":{"z":{},"a":{"enum":["\\u00e9"]}}}'


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, '{"type":"object"}'),
        ({"type": "json_object", "schema": {"type": "array"}}, '{"type":"array"}'),
        ({"type": "json_schema", "schema": {"type": "array"}}, '{"type":"array"}'),
    ],
)
def test_forms_of_an_answer(form: Any, schema: str | None) -> None:
    assert read(response_format=form).schema == schema


@pytest.mark.parametrize(
    ("choice", "read_choice"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("any", "required"),
        ({"type": "required"}, "required"),
        ({"type": "function", "function": {"name": "bash"}}, BASH_TOOL),
        ({"type": "function", "name": "read"}, READ_TOOL),
    ],
)
def test_choices_of_a_tool(choice: Any, read_choice: Any) -> None:
    request = read(tools=[READ, BASH], tool_choice=choice)

    assert request.tool_choice == read_choice
    assert request.tools == (READ_TOOL, BASH_TOOL)


@pytest.mark.parametrize(
    "allowed",
    [{"mode": "required", "tools": [{"type": "function", "function": {"name": "bash"}}]}],
)
def test_allowed_tools_are_the_only_ones(allowed: Any) -> None:
    for choice in ({"type": "allowed_tools", "allowed_tools": allowed}, {"type": "allowed_tools"} | allowed):
        request = read(tools=[READ, BASH], tool_choice=choice)

        assert (request.tools, request.tool_choice, request.strict_tools) == ((BASH_TOOL,), "required", {"bash"})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": ["read"]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a{b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a\nb"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a::b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a" * 257}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": "{}"}}]},
            "tools[0].function.parameters",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"default": float("nan")}}}]},
            "tools[0].function.parameters",
        ),
        ({"tools": [READ, BASH, {"type": "function", "name": "read"}]}, "tools[2].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "read", "tools": [READ]}, "tool_choice"),
        ({"tool_choice": 7}, "tool_choice"),
        ({"tool_choice": {}}, "tool_choice.type"),
        ({"tool_choice": {"type": "web_search"}, "tools": [READ]}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice.function.name"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": True}}},
            "response_format.json_schema.schema",
        ),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": "8"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": float("inf")}, "max_tokens"),
        ({"max_completion_tokens": 0, "max_tokens": 5}, "max_completion_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 2}, "min_p"),
        ({"seed": "x"}, "seed"),
        ({"stop": 7}, "stop"),
        ({"stop": ["a", 7]}, "stop[1]"),
        ({"stop": ["a"] * 65}, "stop"),
        ({"reasoning_effort": 7}, "reasoning_effort"),
        ({"reasoning": "high"}, "reasoning"),
        ({"reasoning": {"effort": 7}}, "reasoning.effort"),
        ({"reasoning": {"enabled": "yes"}}, "reasoning.enabled"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {"type": True}}, "thinking.type"),
        ({"enable_thinking": "yes"}, "enable_thinking"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"enable_thinking": 1}}, "chat_template_kwargs.enable_thinking"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"slipstream": {"draft": 17}}, "slipstream.draft"),
        ({"slipstream": {"draft": 1.5}}, "slipstream.draft"),
        ({"slipstream": {"draft": "fast"}}, "slipstream.draft"),
        ({"slipstream": 7}, "slipstream"),
    ],
)
def test_malformed_settings_are_refused_by_the_field_to_change(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)

    assert error.param == param
    assert str(error).startswith(param)
    assert str(error).endswith(".")


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"items": schema}

    assert refused(tools=[{"type": "function", "name": "f", "parameters": schema}]).param == "tools[0].parameters"


@pytest.mark.parametrize(
    ("fields", "max_tokens"),
    [
        ({}, None),
        ({"max_tokens": 8192}, 8192),
        ({"max_tokens": 8192.0}, 8192),
        ({"max_tokens": 5, "max_completion_tokens": 13107}, 13107),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 128_000}, 128_000),
        ({"max_tokens": 10**40}, 1 << 31),
    ],
)
def test_limits_are_never_too_high(fields: dict[str, Any], max_tokens: int | None) -> None:
    assert read(**fields).max_tokens == max_tokens


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({}, SamplingOptions()),
        ({"temperature": 0, "top_p": 1.0}, SamplingOptions(temperature=0.0, top_p=1.0)),
        ({"top_p": 0}, SamplingOptions(top_p=1e-6)),
        ({"top_k": -1, "min_p": 0.05}, SamplingOptions(top_k=0, min_p=0.05)),
        ({"repetition_penalty": 1.1}, SamplingOptions(repetition_penalty=1.1)),
        ({"seed": 5 + (1 << 70)}, SamplingOptions(seed=5)),
        ({"seed": -1}, SamplingOptions()),
    ],
)
def test_sampling(fields: dict[str, Any], sampling: SamplingOptions) -> None:
    assert read(**fields).sampling == sampling


@pytest.mark.parametrize(
    ("stop", "texts"), [(None, ()), ("END", ("END",)), (["a", "", "b"], ("a", "b")), ([], ()), ("", ())]
)
def test_stop_strings(stop: Any, texts: tuple[str, ...]) -> None:
    assert read(stop=stop).stop == texts


@pytest.mark.parametrize(
    ("fields", "is_thinking"),
    [
        ({}, False),
        ({"reasoning_effort": "low"}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "medium"}, True),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning": {"summary": "auto"}}, False),
        ({"reasoning": {"effort": "high"}}, True),
        ({"reasoning": {"enabled": True}}, True),
        ({"enable_thinking": True}, True),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"}, False),
        ({"thinking": {"type": "enabled"}}, True),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "high"}, False),
    ],
)
def test_thinking_is_off_unless_asked_for(fields: dict[str, Any], is_thinking: bool) -> None:
    assert read(**fields).is_thinking is is_thinking


def test_a_client_may_want_one_call_at_a_time() -> None:
    assert read(parallel_tool_calls=False).is_single_call
    assert not read(parallel_tool_calls=True).is_single_call
    assert not read().is_single_call


def test_drafting_can_be_set() -> None:
    assert read().draft_length == "auto"
    assert read(slipstream={"draft": 0}).draft_length == 0
    assert read(slipstream={"draft": 16}).draft_length == 16
    assert read(slipstream={"draft": "auto"}).draft_length == "auto"
