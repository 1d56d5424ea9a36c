"""Calls whose form is prescribed: by the masks alone, as they are committed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import Generate, Tool
from mlx_engine.text.grammar import Grammars, ReplyForm, Thought, check_form
from mlx_engine.text.prompt import ChatFormat
from tests.fakes.tool_folder import tool_folder

VOCAB = 2048
END = 106
MARKS = {"<|tool_call>": 48, "<tool_call|>": 49, '<|"|>': 52, "<|channel>": 100, "<channel|>": 101}
SCHEMA = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "deep": {"type": "object", "properties": {"x": {"type": ["boolean", "null"]}}, "required": ["x"]},
        "free": {},
        "kind": {"enum": ["a", "é", 3, None]},
        "list": {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 2},
        "node": {"$ref": "#/$defs/node"},
        "path": {"type": "string"},
        "short": {"type": "string", "minLength": 2, "maxLength": 3},
    },
    "required": ["path", "kind"],
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
}
READ, WRITE = Tool("read", parameters=json.dumps(SCHEMA)), Tool("write", parameters='{"type": "object"}')
STRICT = ReplyForm(tools=(READ, WRITE), must_call=True, strict_tools=frozenset({"read"}))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    return ChatFormat(tool_folder(tmp_path_factory.mktemp("calls") / "target"))


@pytest.fixture(scope="module")
def grammars(chat: ChatFormat) -> Grammars:
    return chat.grammars(frozenset({1, END, 50}), VOCAB)


@pytest.fixture
def accepts(chat: ChatFormat, grammars: Grammars) -> Any:
    def accepts(form: ReplyForm, text: str, thought: Thought = "none") -> bool:
        """Whether a whole reply is allowed; `'` stands for a quote mark."""
        check_form(form)
        grammar = grammars.grammar(form, thought)
        parts = re.split("(<[^>]*>)", text.replace("'", '<|"|>'))
        ids = [id for part in parts for id in ([MARKS[part]] if part in MARKS else chat.encode(part))]
        for id in [*ids, END]:
            (row,) = grammar.masks([])
            if not row[id // 8] >> id % 8 & 1:
                return False
            if id != END:
                grammar.advance([id])
        return True

    return accepts


def call(name: str, arguments: str) -> str:
    return f"<|tool_call>call:{name}{arguments}<tool_call|>"


@pytest.mark.parametrize(
    "arguments",
    [
        "{kind:'a',path:'x y {}'}",
        "{kind:'é',path:''}",
        "{count:12,deep:{x:null},free:[1,{a:true}],kind:3,list:[1.5,2],node:{next:{}},path:'a',short:'abc'}",
        "{free:'any',kind:null,path:'a'}",
        "{deep:{x:true},kind:null,node:{next:{next:{}}},path:'a'}",
    ],
)
def test_strict_arguments_that_match(accepts: Any, arguments: str) -> None:
    assert accepts(STRICT, call("read", arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        "{}",
        "{kind:'a'}",
        "{kind:'c',path:'x'}",
        "{count:100,kind:'a',path:''}",
        "{count:'1',kind:'a',path:''}",
        "{deep:{},kind:'a',path:''}",
        "{kind:'a',list:[],path:''}",
        "{kind:'a',list:[1,2,3],path:''}",
        "{kind:'a',path:'',short:'a'}",
        "{kind:'a',path:'',short:'abcd'}",
        "{kind:'a',path:'',other:1}",
        "{kind:'a',path:''",
    ],
)
def test_strict_arguments_that_do_not(accepts: Any, arguments: str) -> None:
    assert not accepts(STRICT, call("read", arguments))


TEXTS = {
    "date": (["2024-02-29", "1999-12-31"], ["2023-02-29", "2024-13-01", "soon", ""]),
    "time": (["23:59:59.5+05:30"], ["23:59:60Z", "24:00:00Z"]),
    "date-time": (["2024-02-29T12:00:00Z"], ["2023-02-29T12:00:00Z", "2024-02-29"]),
    "hostname": (["a-b.example"], ["a..b", "-a", ".".join(["a" * 63] * 4)]),
    "ipv4": (["0.0.0.0", "255.249.199.99"], ["256.0.0.0", "01.0.0.0", "1.2.3"]),
    "ipv6": (
        ["::", "::1", "1::", "1:2:3:4:5:6:7:8", "1::8", "1:2:3:4:5:6:7::", "::ffff:1.2.3.4", "1:2:3::7:8"],
        ["", ":", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "1:2:3:4:5:6:7::8"],
    ),
    "uuid": (["123E4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000"]),
    "duration": (["P1Y2M3DT4H5M6S", "PT36H", "P4W", "P1D"], ["P", "PT", "1D", "P1DT", "P1W2D", "P1H"]),
    "email": (["a.b+c@example.org"], ["a", "@b", "a..b@c", "a@", "a b@c"]),
    "uri": (["https://example.org/a?b=%20#c", "mailto:a@b"], ["/a", "a b:c", "https:", "a:b#c#d", "a:%2"]),
}


@pytest.mark.parametrize("format", TEXTS)
def test_strict_texts_have_their_format(accepts: Any, format: str) -> None:
    """As exactly as in a schema of the reply."""
    schema = {"type": "object", "properties": {"at": {"type": "string", "format": format}}, "required": ["at"]}
    form = ReplyForm(tools=(Tool("f", parameters=json.dumps(schema)),), strict_tools=frozenset({"f"}))
    written, refused = TEXTS[format]
    assert [text for text in written if not accepts(form, call("f", f"{{at:'{text}'}}"))] == []
    assert [text for text in refused if accepts(form, call("f", f"{{at:'{text}'}}"))] == []


def test_a_format_and_a_length_hold_together(accepts: Any) -> None:
    schema = {"properties": {"at": {"type": "string", "format": "email", "minLength": 6, "maxLength": 7}}}
    form = ReplyForm(tools=(Tool("f", parameters=json.dumps(schema)),), strict_tools=frozenset({"f"}))
    texts = ["a@b.c", "ab@b.c", "abc@b.c", "abcd@b.c"]
    assert [accepts(form, call("f", f"{{at:'{text}'}}")) for text in texts] == [False, True, True, False]


def test_a_call_is_required(accepts: Any) -> None:
    form = ReplyForm(tools=(READ, WRITE), must_call=True)
    assert accepts(form, call("read", "{a:1}") + call("write", "{}"))
    assert not accepts(form, "Hello")
    assert not accepts(form, call("other", "{}"))
    assert accepts(form, "<|channel>thought\nHm.<channel|>" + call("read", "{}"), "possible")
    only = ReplyForm(tools=(WRITE,), must_call=True)
    assert accepts(only, call("write", "{a:'b'}"))
    assert not accepts(only, call("read", "{}"))


def test_calls_are_free_or_forbidden_otherwise(accepts: Any) -> None:
    free = ReplyForm(tools=(READ, WRITE), strict_tools=frozenset({"read"}))
    assert accepts(free, "Hello")
    assert accepts(free, "Hello " + call("write", "{a:1}"))
    assert not accepts(free, call("read", "{}"))
    hidden = ReplyForm(hides_tools=True)
    assert accepts(hidden, "Hello {call:read{}}")
    assert not accepts(hidden, call("read", "{}"))


def test_the_form_of_a_request() -> None:
    assert not ReplyForm.of(Generate(1, (), tools=(READ, WRITE))).is_constrained
    assert ReplyForm.of(Generate(1, (), tools=(READ,), tool_choice="none")) == ReplyForm(hides_tools=True)
    assert not ReplyForm.of(Generate(1, (), tool_choice="none")).is_constrained
    chosen = ReplyForm.of(Generate(1, (), tools=(READ, WRITE), tool_choice="required", chosen_tool="write"))
    assert chosen == ReplyForm(tools=(WRITE,), must_call=True)
    strict = ReplyForm.of(Generate(1, (), tools=(READ,), strict_tools=("read", "gone")))
    assert strict.strict_tools == {"read"}
    with pytest.raises(RequestError, match="no such tool"):
        check_form(ReplyForm.of(Generate(1, (), tool_choice="required")))


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": {}},
        {"properties": {"a": True, "type": {"type": "string"}, "b b": {"type": "text"}}},
        {"properties": {"a": {"allOf": [{}]}, "b": {"anyOf": [{"type": "null"}, {"const": {"c": [1]}}]}}},
        {"properties": {"a": {"$ref": "#/gone"}, "b": {"type": []}, "c": {"enum": []}}},
        {"properties": 3, "required": 4},
    ],
)
def test_odd_schemas_have_a_grammar(schema: dict[str, Any]) -> None:
    check_form(ReplyForm(tools=(Tool("f", parameters=json.dumps(schema)),), strict_tools=frozenset({"f"})))


def test_a_schema_that_cannot_be_kept_is_refused() -> None:
    schema = {"properties": {"a": {"type": "integer", "minimum": "1"}}}
    bad = Tool("f", parameters=json.dumps(schema))
    for form in (
        ReplyForm(tools=(bad,), strict_tools=frozenset({"f"})),
        ReplyForm('{"type": "object"}', (READ, bad), strict_tools=frozenset({"f", "read"})),
    ):
        with pytest.raises(RequestError, match=r"parameters of f cannot be used: .*minimum") as refusal:
            check_form(form)
        assert refusal.value.about == "tools.f"
    for bounds in (
        {"type": "string", "minLength": 5, "maxLength": 3},
        {"type": "array", "minItems": 5, "maxItems": 3},
    ):
        nothing = Tool("f", parameters=json.dumps({"properties": {"a": bounds}}))
        with pytest.raises(RequestError, match=r"of f cannot be used: min\w+ \(5\) is greater than max\w+ \(3\)"):
            check_form(ReplyForm(tools=(nothing,), strict_tools=frozenset({"f"})))
    with pytest.raises(RequestError, match="parameters of f cannot be read") as refusal:
        check_form(ReplyForm(tools=(Tool("f", parameters="["),), strict_tools=frozenset({"f"})))
    assert refusal.value.about == "tools.f"
