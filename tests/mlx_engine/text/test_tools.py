"""Tools beyond the recorded cases: marks in texts, ids, cut calls, and what a client may send."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import Message, Tool, ToolCall
from mlx_engine.text.call_parser import NoCallError, parse_calls
from mlx_engine.text.model_turn import reply_key
from mlx_engine.text.prompt import ChatFormat
from mlx_engine.text.tool_schema import flattened
from models.pocket import TARGET_FOLDER
from tests.cases import cases
from tests.fakes.tool_folder import without_quote_mark

USER = Message("user", "Hi")
CALL, CALL_END, RESULT, RESULT_END, QUOTE, CHANNEL = 48, 49, 50, 51, 52, 100


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(TARGET_FOLDER)


def controls_of(ids: list[int]) -> list[int]:
    return [id for id in ids if id < 107]


PIECES = st.lists(
    st.sampled_from(
        ["<|tool_call>", "<tool_call|>", '<|"|>', "<tool|>", "<turn|>", "<|tool_response>", "<|to", "|>"]
    )
    | st.characters(codec="utf-8")
).map("".join)


@settings(max_examples=cases(50, 1000), deadline=None)
@given(text=PIECES)
def test_nothing_that_a_client_sends_becomes_a_control_token(chat: ChatFormat, text: str) -> None:

    def rendered(text: str) -> list[int]:
        parameters = {"type": "object", "properties": {f"a{text}": {"type": "string", "description": f"d{text}"}}}
        call = ToolCall(f"f{text}", json.dumps({f"k{text}": f"v{text}"}), "1")
        messages = [
            USER,
            Message("assistant", f"t{text}.", f"s{text}", (call,)),
            Message("tool", text, call_id="1"),
        ]
        tools = [Tool(f"f{text}", f"d{text}", json.dumps(parameters))]
        return controls_of(chat.render(messages, is_thinking=True, tools=tools).ids)

    assert rendered(text) == rendered("x")


def test_results_without_ids_belong_to_the_calls_in_their_order(chat: ChatFormat) -> None:
    calls = (ToolCall("first"), ToolCall("second"))
    messages = [USER, Message("assistant", "", calls=calls), Message("tool", "1"), Message("tool", "2")]
    named = [
        USER,
        Message("assistant", "", calls=(ToolCall("first", id="a"), ToolCall("second", id="b"))),
        Message("tool", "1", call_id="a"),
        Message("tool", "2", call_id="b"),
    ]
    assert chat.render(messages).ids == chat.render(named).ids


def test_arguments_are_the_same_however_they_are_written(chat: ChatFormat) -> None:
    def rendered(arguments: str) -> list[int]:
        return chat.render([USER, Message("assistant", "", calls=(ToolCall("f", arguments),))]).ids

    assert rendered('{"a":1,"b":[2]}') == rendered('{ "b": [2],\n"a": 1 }')
    assert rendered("") == rendered("{}")


@pytest.mark.parametrize(
    "arguments", ["[1]", "1", '"a"', "{", "{a:1}", '{"a":NaN}', '{"a":' * 70 + "1" + "}" * 70]
)
def test_arguments_that_are_no_object_are_refused(chat: ChatFormat, arguments: str) -> None:
    with pytest.raises(RequestError, match="The arguments of the call of f"):
        chat.render([USER, Message("assistant", "", calls=(ToolCall("f", arguments),))])


def test_half_a_character_in_arguments_is_written_as_a_replacement(chat: ChatFormat) -> None:
    def rendered(arguments: str) -> list[int]:
        return chat.render([USER, Message("assistant", "", calls=(ToolCall("f", arguments),))]).ids

    assert rendered('{"a": "\\ud83d"}') == rendered('{"a": "\ufffd"}')
    assert rendered('{"a": "\\ud83d\\ude42"}') == rendered('{"a": "🙂"}')


def test_a_tokenizer_without_a_mark_for_tools_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot use tools"):
        ChatFormat(without_quote_mark(tmp_path / "target")).render([USER], tools=[Tool("f")])


def test_a_known_reply_with_calls_returns_as_its_own_tokens(chat: ChatFormat) -> None:
    call = ToolCall("f", '{"b": 1, "a": 2}', "1")
    own = [*chat.encode("Let me look."), CALL, *chat.encode("call:f{ b:1, a:2}"), CALL_END]
    known = {reply_key("Let me look.", [call]): own}
    again = Message("assistant", " Let me look.\n", calls=(ToolCall("f", '{"a":2,"b":1}', "other"),))
    ids = chat.render([USER, again, Message("tool", "ok", call_id="other")], known_replies=known).ids
    begin = ids.index(CALL) - len(chat.encode("Let me look."))
    assert ids[begin : begin + len(own)] == own
    assert ids[begin + len(own)] == RESULT


def test_no_text_is_taken_for_a_known_call(chat: ChatFormat) -> None:
    key = reply_key("", [ToolCall("f")])
    with pytest.raises(UnicodeEncodeError):
        key.encode()
    ids = chat.render([USER, Message("assistant", key[1:]), USER], known_replies={key: [CALL, CALL_END]}).ids
    assert CALL not in ids


def test_the_next_request_continues_the_prompt_of_the_one_before(chat: ChatFormat) -> None:
    call = Message("assistant", "", calls=(ToolCall("f", id="1"),))
    first = chat.render([USER, call, Message("tool", "ok", call_id="1")]).ids
    second = chat.render([USER, call, Message("tool", "ok", call_id="1"), Message("assistant", "Done."), USER]).ids
    assert second[: len(first)] == first


def test_thoughts_are_seen_until_the_next_message_of_a_person(chat: ChatFormat) -> None:
    call = Message("assistant", "", "I need f.", (ToolCall("f", id="1"),))
    running = chat.render([USER, call, Message("tool", "ok", call_id="1")]).ids
    later = chat.render([USER, call, Message("tool", "ok", call_id="1"), Message("assistant", "Done."), USER]).ids
    assert CHANNEL in running
    assert CHANNEL not in later


def test_a_reply_after_results_begins_in_its_thought(chat: ChatFormat) -> None:
    messages = [USER, Message("assistant", "", calls=(ToolCall("f"),)), Message("tool", "ok")]
    prompt = chat.render(messages, is_thinking=True)
    assert prompt.thought_ids == (CHANNEL, *chat.encode("thought\n"))
    assert chat.render(messages).thought_ids == ()


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_call_that_was_cut_off_is_never_a_call(chat: ChatFormat, is_cut: bool) -> None:
    """Even one that may be complete is none if the reply was cut: another call could have followed in it."""
    decoder = chat.reply_decoder(has_tools=True)
    decoder.add([CALL, *chat.encode("call:f{a:1}" if is_cut else "call:f{a:1"), *([] if is_cut else [QUOTE])])
    piece = decoder.finish(is_cut=is_cut)
    assert piece.calls == ()
    assert piece.refused_calls
    assert not decoder.has_plain_answer


def test_calls_are_given_out_when_they_are_complete(chat: ChatFormat) -> None:
    decoder = chat.reply_decoder(has_tools=True)
    text = [*chat.encode("Let me look."), CALL, *chat.encode("call:f{a:1}")]
    assert [call for id in text for call in decoder.add([id]).calls] == []
    piece = decoder.add([CALL_END, CALL, *chat.encode("call:g{}"), CALL_END])
    assert [(call.name, call.arguments) for call in piece.calls] == [("f", '{"a": 1}'), ("g", "{}")]
    assert len({call.id for call in piece.calls}) == 2
    assert decoder.has_plain_answer


def test_without_tools_a_call_is_text(chat: ChatFormat) -> None:
    decoder = chat.reply_decoder()
    piece = decoder.add([CALL, *chat.encode("call:f{}"), CALL_END])
    assert (piece.text + decoder.finish().text, piece.calls) == ("call:f{}", ())


def test_a_refused_call_in_a_thought_stays_in_the_thought(chat: ChatFormat) -> None:
    decoder = chat.reply_decoder(has_tools=True)
    piece = decoder.add([CHANNEL, *chat.encode("thought\nhm"), CALL, *chat.encode("f()"), CALL_END])
    assert piece.text == ""
    assert piece.thinking.endswith("hm<|tool_call>f()<tool_call|>")


@pytest.mark.parametrize(
    "pieces",
    [
        ["call:f{a:1,a:2}"],
        ["call:f{a:1}x"],
        ["call:f{a:1} {b:2}"],
        ["call:f{:1}"],
        ["call:f{a}"],
        ["call:f{a:[1}"],
        ["call:f{a:", "x", " y}"],
        ["call:", "f", "{}"],
        ["call:{}"],
        ["call:f{a:" + "[" * 5000],
        ['call:f{a:"\\ud800"}'],
        ['{"name": "f"}'],
        ['{"name": "f", "arguments": "{}"}'],
        [""],
    ],
)
def test_what_would_have_to_be_guessed_is_no_call(pieces: list[str]) -> None:
    with pytest.raises(NoCallError):
        parse_calls(pieces, is_closed=True)


def test_numbers_that_json_cannot_have_are_strings() -> None:
    (call,) = parse_calls(["call:f{a:1e999,b:-0,c:" + "9" * 5000 + "}"], is_closed=True)
    assert call[1] == {"a": "1e999", "b": 0, "c": "9" * 5000}


NULL, TEXT, NUMBER = {"type": "null"}, {"type": "string", "enum": ["a"]}, {"type": "number"}


@pytest.mark.parametrize(
    ("schema", "flat"),
    [
        ({"anyOf": [TEXT, NULL], "description": "d"}, TEXT | {"nullable": True, "description": "d"}),
        ({"oneOf": [TEXT, NUMBER]}, TEXT | {"type": ["string", "number"]}),
        ({"type": ["null"]}, NULL),
        ({"type": ["string", "null"]}, {"type": "string", "nullable": True}),
        ({"anyOf": [{"anyOf": [NUMBER, NULL]}, NULL]}, NUMBER | {"nullable": True}),
        ({"anyOf": []}, {}),
        ({"anyOf": [True]}, {}),
        (True, {}),
        (
            {"type": "object", "properties": {"type": {"anyOf": [NUMBER]}}},
            {"type": "object", "properties": {"type": NUMBER}},
        ),
        (
            {"type": "array", "items": {"anyOf": [NUMBER, NULL]}},
            {"type": "array", "items": NUMBER | {"nullable": True}},
        ),
    ],
)
def test_a_schema_gets_one_type_where_it_has_one(schema: object, flat: dict[str, object]) -> None:
    assert flattened(schema) == flat
