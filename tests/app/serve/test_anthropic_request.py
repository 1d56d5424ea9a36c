"""What clients of Anthropic's API send, read as requests: the recorded structures of Claude Code, and any JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serve.dialects.anthropic import AnthropicMessages
from app.serve.errors import BadRequestError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import Message, Tool, ToolCall
from tests.cases import cases

RECORDED = Path(__file__).parent / "clients" / "anthropic" / "claude_code.json"
BILLING = "x-anthropic-billing-header: cc_version={}; cc_entrypoint=cli; cch=00000;"
TOOL = {"name": "look", "description": "Look.", "input_schema": {"type": "object", "properties": {}}}


def read(**fields: Any) -> AnswerRequest:
    """A request with these fields beside a message."""
    return AnthropicMessages().read({"messages": [{"role": "user", "content": "Hi"}], **fields})


def messages_of(*messages: dict[str, Any], **fields: Any) -> tuple[Message, ...]:
    """What a conversation is read as."""
    return read(messages=list(messages), **fields).messages


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def text(content: str, **others: Any) -> dict[str, Any]:
    return {"type": "text", "text": content, **others}


def call(id: str, input: Any = None, name: str = "look") -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": input or {}}


def result(id: str, content: Any, **others: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **others}


def filled(value: Any) -> Any:
    """A recorded structure with texts of the recorded lengths."""
    match value:
        case str() if value.startswith("str:"):
            length = int(value.removeprefix("str:"))
            return (f"text of {length} characters, " * (length // 8 + 1))[:length]
        case dict():
            return {key: filled(inner) for key, inner in value.items()}
        case list():
            return [filled(inner) for inner in value]
    return value


def recorded(name: str, turn: int = 1) -> dict[str, Any]:
    """A recorded request; the first line of its system prompt changes from turn to turn."""
    body: dict[str, Any] = filled(json.loads(RECORDED.read_text(encoding="utf-8"))[name])
    for tool in body.get("tools", []):
        names = [f"option_{index}" for index in range(tool.pop("properties"))]
        properties = {option: {"type": "string", "description": "An option."} for option in names}
        tool["input_schema"] = {"type": "object", "properties": properties, "additionalProperties": False}
    if "system" in body:
        body["system"][0]["text"] = BILLING.format(turn)
    return body


def test_claude_codes_question_has_its_system_prompt_tools_and_the_system_message_behind() -> None:
    body = recorded("question")
    request = AnthropicMessages().read(body)
    assert [message.role for message in request.messages] == ["system", "user", "system"]
    assert len(request.messages[0].text) == 62 + 2 + 6790
    assert "billing" not in request.messages[0].text
    assert len(request.messages[1].text) == 579 + 2 + 20
    assert [tool.name for tool in request.tools] == [
        tool["name"] for tool in body["tools"] if not tool.get("defer_loading")
    ]
    assert request.is_streamed
    assert not request.is_thinking
    assert request.max_tokens == 32000


@pytest.mark.parametrize("name", ["tool result", "thoughts"])
def test_claude_codes_next_turn_begins_as_the_one_before(name: str) -> None:
    before = AnthropicMessages().read(recorded("question", turn=1))
    after = AnthropicMessages().read(recorded(name, turn=2))
    assert after.messages[: len(before.messages)] == before.messages
    assert after.tools == before.tools
    reply, tool_result = after.messages[len(before.messages) :]
    assert (reply.role, tool_result.role) == ("assistant", "tool")
    assert reply.calls[0].id == tool_result.call_id
    assert reply.calls[0].name == "Bash"
    assert bool(reply.thinking) == (name == "thoughts")


def test_claude_codes_other_requests() -> None:
    title = AnthropicMessages().read(recorded("title"))
    assert title.schema
    assert json.loads(title.schema)["required"] == ["text "]
    assert not title.tools
    picture = AnthropicMessages().read(recorded("picture"))
    assert picture.messages[-1].text == "[an image, which cannot be read here]"
    subagent = AnthropicMessages().read(recorded("subagent"))
    assert [message.role for message in subagent.messages] == ["system", "user", "system"]
    after = AnthropicMessages().read(recorded("after a subagent"))
    assert [message.role for message in after.messages[-3:]] == ["assistant", "tool", "user"]
    assert len(AnthropicMessages().read(recorded("bare")).tools) == 3
    assert AnthropicMessages().read(recorded("count")).max_tokens is None


def test_neighbouring_messages_of_one_side_are_one() -> None:
    assert messages_of(user("A"), user([text("B"), text("C")]), assistant("D"), assistant("E"), user("F")) == (
        Message("user", "A\n\nB\n\nC"),
        Message("assistant", "DE"),
        Message("user", "F"),
    )


def test_system_texts_at_the_start_are_one_and_later_ones_stay_in_place() -> None:
    system = [text(BILLING.format(1)), text("Be brief."), text("")]
    assert messages_of({"role": "system", "content": "Be kind."}, user("Hi"), system=system) == (
        Message("system", "Be brief.\n\nBe kind."),
        Message("user", "Hi"),
    )
    assert messages_of(user("Hi"), {"role": "system", "content": [text("Now")]}, system=BILLING.format(2)) == (
        Message("user", "Hi"),
        Message("system", "Now"),
    )
    assert messages_of(user(BILLING.format(1))) == (Message("user", BILLING.format(1)),)


def test_results_follow_their_calls_and_come_before_what_the_person_adds() -> None:
    conversation = (
        user("Look"),
        assistant([text("Yes."), call("x", {"b": 1, "a": [True, None]}), call("y")]),
        user([text("Go on"), result("y", [text("one"), text("two")]), result("x", "no", is_error=True)]),
    )
    calls = (ToolCall("look", '{"a":[true,null],"b":1}', "call_1"), ToolCall("look", "{}", "call_2"))
    assert messages_of(*conversation) == (
        Message("user", "Look"),
        Message("assistant", "Yes.", calls=calls),
        Message("tool", "one\n\ntwo", call_id="call_2"),
        Message("tool", "Error: no", call_id="call_1"),
        Message("user", "Go on"),
    )


def test_a_reply_to_continue_stays_the_last() -> None:
    assert messages_of(user("Hi"), assistant("Hello, "))[-1] == Message("assistant", "Hello, ")


def test_what_is_no_text_is_named_and_what_other_servers_did_is_left_out() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    blocks = [
        {"type": "image", "source": source},
        {"type": "document", "title": "Notes", "source": {"type": "text", "data": "One."}},
        {"type": "document", "source": {"type": "content", "content": [text("Two.")]}},
        {"type": "document", "source": source},
        {"type": "search_result", "title": "Found", "content": [text("Three.")]},
        {"type": "something_new"},
    ]
    answer = [{"type": "redacted_thinking", "data": "x"}, {"type": "server_tool_use", "id": "s"}, text("Yes.")]
    assert messages_of(user(blocks), assistant(answer), user("Go on"))[:2] == (
        Message(
            "user",
            "[an image, which cannot be read here]\n\nNotes\n\nOne.\n\nTwo.\n\n"
            "[a document, which cannot be read here]\n\nFound\n\nThree.\n\n[something that cannot be read here]",
        ),
        Message("assistant", "Yes."),
    )


def test_deferred_tools_are_there_once_a_result_names_them() -> None:
    tools = [TOOL, TOOL | {"name": "later", "defer_loading": True}]
    assert [tool.name for tool in read(tools=tools).tools] == ["look"]
    found = result("x", [{"type": "tool_reference", "tool_name": "later"}])
    request = read(tools=tools, messages=[user("Hi"), assistant([call("x")]), user([found])])
    assert [tool.name for tool in request.tools] == ["look", "later"]
    assert request.messages[-1].text == "The tool later can be called now."


def test_the_servers_own_tools_are_skipped_and_strict_ones_noted() -> None:
    request = read(tools=[{"type": "web_search_20250305", "name": "web_search"}, TOOL | {"strict": True}])
    assert request.tools == (Tool("look", "Look.", '{"type":"object","properties":{}}'),)
    assert request.strict_tools == {"look"}


def test_choices_of_tools() -> None:
    tools = [TOOL]
    assert read(tools=tools).tool_choice == "auto"
    single = read(tools=tools, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert (single.tool_choice, single.is_single_call) == ("auto", True)
    assert not read(tools=tools, tool_choice={"type": "auto"}).is_single_call
    assert read(tools=tools, tool_choice={"type": "none"}).tool_choice == "none"
    assert read(tools=tools, tool_choice={"type": "any"}).tool_choice == "required"
    assert (
        read(tools=tools, tool_choice={"type": "tool", "name": "look"}).tool_choice == read(tools=tools).tools[0]
    )


def test_settings_of_the_answer() -> None:
    request = read(
        max_tokens=10**30,
        stop_sequences=["END", "\n"],
        temperature=0,
        top_k=5,
        top_p=0.5,
        thinking={"type": "enabled", "budget_tokens": 1024},
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        slipstream={"draft": 3},
        model="claude-haiku-5-5",
        metadata={"user_id": "x"},
        context_management={"edits": []},
    )
    assert request.max_tokens
    assert request.max_tokens >= 2**31
    assert request.stop == ("END", "\n")
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.top_p) == (0, 5, 0.5)
    assert request.is_thinking
    assert request.schema == '{"type":"object"}'
    assert request.draft_length == 3
    assert request.model == "claude-haiku-5-5"
    assert not read(thinking={"type": "adaptive"}, output_config={"effort": "high"}).is_thinking
    assert read(thinking={"type": "adaptive"}, output_config={"effort": "max"}).is_thinking
    assert not read(thinking={"type": "disabled"}).is_thinking
    assert read(output_format={"type": "json_schema", "schema": {}}).schema == "{}"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [user("Hi"), user("")]}, "messages[1].content"),
        ({"messages": [user([])]}, "messages[0].content"),
        ({"messages": [user(3)]}, "messages[0].content"),
        ({"messages": [user([{"text": "Hi"}])]}, "messages[0].content[0].type"),
        ({"messages": [user([text(3)])]}, "messages[0].content[0].text"),  # type: ignore[arg-type]
        ({"messages": [user([result("x", "")])]}, "messages[0].content[0].tool_use_id"),
        ({"messages": [user("Hi"), assistant([call("x")])]}, "messages"),
        ({"messages": [assistant("Hi")]}, "messages"),
        ({"messages": [user("Hi"), assistant([call("x", [1])]), user("Go on")]}, "messages[1].content[0].input"),
        ({"tools": [{"description": "No name."}]}, "tools[0].name"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tools": [TOOL | {"input_schema": "x"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [TOOL]}, "tool_choice.name"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [1]}, "stop_sequences[0]"),
        ({"stop_sequences": ["a"] * 65}, "stop_sequences"),
        ({"thinking": {"type": 7}}, "thinking.type"),
        ({"output_config": {"effort": 7}}, "output_config.effort"),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
            "tool_choice.disable_parallel_tool_use",
        ),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"stream": "yes"}, "stream"),
        ({"model": 4}, "model"),
        ({"slipstream": {"draft": 17}}, "slipstream.draft"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(**fields)
    assert caught.value.param == param
    assert param in str(caught.value)


words = st.sampled_from(["Hi", "two\nlines", "{}", " spaced ", "größer"])
inputs: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from("abc"), st.sampled_from([1, 2.5, "x", None, True, [1, {"k": "v"}]])
)
marks: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"cache_control": {"type": "ephemeral"}}, {"citations": None}, {"is_error": False}]
)


@st.composite
def turns(draw: st.DrawFn) -> list[tuple[str, list[str], dict[str, Any]]]:
    """A conversation: what a person says, what the model says, the input of its call."""
    some = st.lists(words, min_size=1, max_size=2)
    return draw(st.lists(st.tuples(words, some, inputs), min_size=1, max_size=3))


def written(draw: st.DrawFn, conversation: list[tuple[str, list[str], dict[str, Any]]]) -> dict[str, Any]:
    """The conversation as a body, in one of the ways that clients write it."""

    def content(*texts: str) -> Any:
        if len(texts) == 1 and draw(st.booleans()):
            return texts[0]
        return [text(one, **draw(marks)) for one in texts]

    def anew(value: dict[str, Any]) -> dict[str, Any]:
        return dict(draw(st.permutations(list(value.items()))))

    messages: list[dict[str, Any]] = []
    for asked, told, arguments in conversation:
        id = draw(st.uuids()).hex
        said = [text(one, **draw(marks)) for one in told]
        messages += [
            user(content(asked)),
            assistant([*said, call(id, anew(arguments)) | draw(marks)]),
            user([result(id, content("done"), **draw(marks))]),
        ]
    billing = [text(BILLING.format(draw(st.integers(0, 9))))] if draw(st.booleans()) else []
    tool = anew(TOOL) | draw(marks)
    return {
        "messages": messages,
        "system": [*billing, text("Be brief.", **draw(marks))],
        "tools": [tool],
        "max_tokens": 100,
        "metadata": {"user_id": draw(words)},
    }


@settings(max_examples=cases(50, 1000))
@given(st.data(), turns())
def test_what_means_the_same_is_read_the_same(
    data: st.DataObject, conversation: list[tuple[str, list[str], dict[str, Any]]]
) -> None:
    bodies = st.composite(written)(conversation)
    assert AnthropicMessages().read(data.draw(bodies)) == AnthropicMessages().read(data.draw(bodies))


KEYS = [
    "messages", "role", "content", "type", "text", "system", "tools", "name", "id", "input", "tool_use_id",
    "stream", "input_schema", "tool_choice", "thinking", "source", "output_config", "format", "schema",
    "stop_sequences", "max_tokens", "temperature", "top_k", "top_p", "slipstream", "draft", "is_error",
    "title", "data", "model",
]  # fmt: skip
ROLES = ["user", "assistant", "system"]
KINDS = [
    "text", "image", "tool_use", "tool_result", "thinking", "document", "search_result", "tool_reference",
    "content", "enabled", "json_schema", "any", "tool", "custom",
]  # fmt: skip
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(KINDS + ROLES)
    | st.text(st.characters(codec=None), max_size=3)
)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)
conversations = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": anything}), min_size=1, max_size=3
)
bodies = st.builds(
    lambda messages, others: others | {"messages": messages},
    conversations | anything,
    st.dictionaries(st.sampled_from(KEYS), anything, max_size=5),
)


@settings(max_examples=cases(200, 5000))
@given(bodies)
def test_any_json_is_read_or_refused_in_a_sentence(body: dict[str, Any]) -> None:
    try:
        request = AnthropicMessages().read(body)
    except BadRequestError:
        return
    for message in request.messages:
        message.text.encode()


def test_deep_nesting_is_refused_in_a_sentence() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(BadRequestError):
        read(tools=[TOOL | {"input_schema": deep}])
