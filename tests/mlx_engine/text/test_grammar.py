"""Masks of a schema: what may come next, for the committed tokens and for drafts that may be wrong."""

from __future__ import annotations

import builtins
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import Tool
from mlx_engine.text.grammar import Grammar, Grammars, ReplyForm, Thought, check_form
from mlx_engine.text.prompt import ChatFormat
from models.pocket import TARGET_FOLDER

VOCAB = 2048
ENDS = frozenset({1, 106, 50})
CALL, CALL_END, QUOTE, CHANNEL, CHANNEL_END = 48, 49, 52, 100, 101
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "text": {"type": "string"}},
        "required": ["ok", "text"],
        "additionalProperties": False,
    }
)
ANSWER = '{"ok": true, "text": "<b>é🙂</b>"}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket tokenizer with tags among its added tokens as in Gemma's."""
    folder = tmp_path_factory.mktemp("grammar") / "target"
    shutil.copytree(TARGET_FOLDER, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    for id, tag in ((53, "<b>"), (54, "</b>"), (55, "</s>")):
        del vocab[f"<unused{id}>"]
        vocab[tag] = id
        like = next(token for token in tokenizer["added_tokens"] if token["id"] == CALL)
        tokenizer["added_tokens"].append(like | {"id": id, "content": tag, "special": False})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    return folder


@pytest.fixture(scope="module")
def chat(folder: Path) -> ChatFormat:
    return ChatFormat(folder)


@pytest.fixture(scope="module")
def grammars(chat: ChatFormat) -> Grammars:
    return chat.grammars(ENDS, VOCAB)


def allowed(row: bytes) -> set[int]:
    return {id for id in range(VOCAB) if row[id // 8] >> id % 8 & 1}


def accepts(grammar: Grammar, tokens: Sequence[int]) -> bool:
    """By the masks alone, token by token as they are committed."""
    for token in tokens:
        (row,) = grammar.masks([])
        if token not in allowed(row):
            return False
        grammar.advance([token])
    return True


def test_a_whole_answer_and_then_an_end_token(chat: ChatFormat, grammars: Grammars) -> None:
    grammar = grammars.grammar(ReplyForm(SCHEMA))
    assert accepts(grammar, chat.encode(ANSWER))
    (row,) = grammar.masks([])
    assert allowed(row) == ENDS, "also the one that the template's turn ends with, and not </s>"


def test_a_tag_is_ordinary_text(chat: ChatFormat, grammars: Grammars) -> None:
    ids = chat.encode('{"ok": true, "text": "<b>')
    assert ids[-1] == 53
    assert accepts(grammars.grammar(ReplyForm(SCHEMA)), ids)
    constant = json.dumps({"const": "<b>x</b>"})
    assert accepts(grammars.grammar(ReplyForm(constant)), chat.encode('"<b>x</b>"'))


def test_marks_are_never_allowed_in_a_text(chat: ChatFormat, grammars: Grammars) -> None:
    grammar = grammars.grammar(ReplyForm(SCHEMA))
    grammar.advance(chat.encode('{"ok": true, "text": "a'))
    (row,) = grammar.masks([])
    assert allowed(row).isdisjoint({0, 1, 2, 3, 4, 46, 47, 48, 49, 50, 51, 52, 98, 100, 101, 105, 106})


def test_the_rows_of_a_draft_are_those_after_each_of_its_tokens(chat: ChatFormat, grammars: Grammars) -> None:
    ids = chat.encode(ANSWER)
    for begin in range(0, len(ids) - 4, 3):
        grammar, reference = grammars.grammar(ReplyForm(SCHEMA)), grammars.grammar(ReplyForm(SCHEMA))
        grammar.advance(ids[:begin])
        rows = grammar.masks(ids[begin : begin + 4])
        for count, row in enumerate(rows):
            if count:
                reference.advance(ids[begin + count - 1 : begin + count])
            else:
                reference.advance(ids[:begin])
            assert row == reference.masks([])[0]
        assert grammar.masks([])[0] == rows[0], "asking changes nothing"


@pytest.mark.parametrize("wrong", [106, CALL, 53, 5, 1999])
def test_a_wrong_draft_harms_nothing(wrong: int, chat: ChatFormat, grammars: Grammars) -> None:
    grammar = grammars.grammar(ReplyForm(SCHEMA))
    ids = chat.encode(ANSWER)
    for begin in range(len(ids)):
        rows = grammar.masks([*ids[begin : begin + 1], wrong, wrong, *ids[:2]])
        assert len(rows) == 6
        grammar.advance(ids[begin : begin + 1])
    assert allowed(grammar.masks([106, 106])[0]) == ENDS


def test_what_the_mask_leaves_out_is_not_taken_from_a_draft(chat: ChatFormat, grammars: Grammars) -> None:
    """After a mark the matcher would take parts of a forced text that its mask does not allow."""
    grammar = grammars.grammar(ReplyForm(SCHEMA), "possible")
    forced = chat.encode("thought\n")
    (before, after, _) = grammar.masks([CHANNEL, chat.encode("t")[0]])
    assert CHANNEL in allowed(before)
    if chat.encode("t")[0] not in allowed(after):
        assert accepts(grammar, [CHANNEL, *forced])


@pytest.mark.parametrize(
    ("thought", "begin"),
    [
        ("none", []),
        ("possible", []),
        ("possible", [CHANNEL, "thought\nHm. <b> {", CHANNEL_END]),
        ("possible", [CHANNEL, "thought\n", CHANNEL_END]),
        ("begun", ["Hm.", CHANNEL_END]),
        ("begun", [CHANNEL_END]),
    ],
)
def test_a_thought_before_the_answer(
    thought: Thought, begin: list[Any], chat: ChatFormat, grammars: Grammars
) -> None:
    ids = [id for part in begin for id in (chat.encode(part) if isinstance(part, str) else [part])]
    answer = chat.encode(ANSWER)
    assert accepts(grammars.grammar(ReplyForm(SCHEMA), thought), ids + answer)
    rows = grammars.grammar(ReplyForm(SCHEMA), thought).masks(ids + answer[:1])
    after_thought = grammars.grammar(ReplyForm(SCHEMA)).masks(answer[:1])
    assert rows[len(ids) + 1] == after_thought[1], "masked from the thought's end on, inside one round"


def test_with_tools_calls_may_come_instead(chat: ChatFormat, grammars: Grammars) -> None:
    call = [CALL, *chat.encode("call:f{a:"), QUOTE, *chat.encode("x"), QUOTE, *chat.encode("}"), CALL_END]
    assert accepts(grammars.grammar(ReplyForm(SCHEMA, (Tool("f"),))), [*call, *call, 50])
    assert accepts(grammars.grammar(ReplyForm(SCHEMA, (Tool("f"),))), chat.encode(ANSWER))
    assert not accepts(grammars.grammar(ReplyForm(SCHEMA)), call)


def test_spaces_are_where_python_writes_them(chat: ChatFormat, grammars: Grammars) -> None:
    assert not accepts(grammars.grammar(ReplyForm(SCHEMA)), chat.encode('{"ok":true'))
    assert not accepts(grammars.grammar(ReplyForm(SCHEMA)), chat.encode("{\n"))
    own = json.dumps(json.loads(SCHEMA) | {"x-guidance": {"whitespace_flexible": True}})
    assert not accepts(grammars.grammar(ReplyForm(own)), chat.encode("{\n")), "whatever the schema asks for"


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {}}, '"not"'),
        ({"type": "array", "uniqueItems": True}, '"uniqueItems"'),
        ({"properties": {"a": {"if": {}}}}, '"if"'),
        ({"type": "string", "format": "idn-email"}, "idn-email"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"type": "text"}, "text"),
        ([], "a JSON list"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_name(schema: Any, reason: str, grammars: Grammars) -> None:
    with pytest.raises(RequestError, match=reason):
        grammars.grammar(ReplyForm(json.dumps(schema)))
    with pytest.raises(RequestError, match=reason):
        check_form(ReplyForm(json.dumps(schema)))
    with pytest.raises(RequestError, match="not valid JSON"):
        grammars.grammar(ReplyForm(json.dumps(schema) + "}"))


def test_a_token_that_does_not_match_is_an_error_and_not_taken(chat: ChatFormat, grammars: Grammars) -> None:
    grammar = grammars.grammar(ReplyForm(SCHEMA))
    with pytest.raises(RequestError, match="suppress"):
        grammar.advance(chat.encode("Hello"))


def test_without_llguidance_a_schema_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "llguidance":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "llguidance", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RequestError, match=r"pip install llguidance"):
        ChatFormat(TARGET_FOLDER).grammars(ENDS, VOCAB)
