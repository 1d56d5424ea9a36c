"""Formats that llguidance checks loosely: what may be written is what a strict reader takes."""

from __future__ import annotations

import json
import random
from datetime import date, datetime
from typing import Any

import pytest

from mlx_engine.text.exact_formats import with_exact_formats
from mlx_engine.text.grammar import Grammars, ReplyForm
from mlx_engine.text.prompt import ChatFormat
from models.pocket import TARGET_FOLDER
from tests.cases import cases


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(TARGET_FOLDER)


@pytest.fixture(scope="module")
def grammars(chat: ChatFormat) -> Grammars:
    return chat.grammars(frozenset({1}), 2048)


def is_allowed(schema: Any, value: Any, chat: ChatFormat, grammars: Grammars) -> bool:
    """By the masks, as a whole reply."""
    grammar = grammars.grammar(ReplyForm(json.dumps(schema)))
    for token in (*chat.encode(json.dumps(value)), 1):
        row = grammar.masks([])[0]
        if not row[token // 8] >> token % 8 & 1:
            return False
        grammar.advance([token])
    return True


LABEL = "a" * 63
WRITTEN = {
    "date": ["2024-02-29", "2000-02-29", "2023-12-31", "1900-02-28"],
    "time": ["23:59:59Z", "00:00:00.125z", "12:30:00+05:30", "12:30:00-00:00"],
    "date-time": ["2024-02-29T12:00:00Z", "2023-11-30t23:59:59.5-23:59"],
    "hostname": ["a", "a-b.example", "1.2.3.example", f"{LABEL}.b", "a--b", "abc-d"],
}
REFUSED = {
    "date": ["2023-02-29", "1900-02-29", "2024-02-30", "2023-04-31", "2023-13-01", "2023-00-10", "23-01-01"],
    "time": ["23:59:60Z", "24:00:00Z", "12:00:00", "12:60:00Z", "12:00:00+24:00", "12:00:00.Z"],
    "date-time": ["2023-02-29T12:00:00Z", "2023-01-01T23:59:60Z", "2023-01-01 12:00:00Z"],
    "hostname": ["", "-a", "a-", "a..b", "a.", f"{LABEL}b", "ab--c", "xn--X", "a_b", ".".join([LABEL] * 4)],
}


@pytest.mark.parametrize("format", WRITTEN)
def test_what_may_be_written(format: str, chat: ChatFormat, grammars: Grammars) -> None:
    schema = {"type": "string", "format": format}
    assert [text for text in WRITTEN[format] if not is_allowed(schema, text, chat, grammars)] == []
    assert [text for text in REFUSED[format] if is_allowed(schema, text, chat, grammars)] == []


def test_dates_are_those_of_the_calendar(chat: ChatFormat, grammars: Grammars) -> None:
    draw = random.Random(3)
    for _ in range(cases(40, 2000)):
        year = draw.choice([1600, 1900, 2000, 2023, 2024, 2100, draw.randint(1, 9999)])
        text = f"{year:04}-{draw.choice([2, 2, draw.randint(0, 13)]):02}-{draw.choice([0, *range(27, 33)]):02}"
        try:
            is_date = bool(date.fromisoformat(text))
        except ValueError:
            is_date = False
        assert is_allowed({"format": "date"}, text, chat, grammars) == is_date, text


@pytest.mark.parametrize("format", WRITTEN)
def test_every_random_reply_is_valid(format: str, grammars: Grammars, chat: ChatFormat) -> None:
    """Tokens drawn from the masks alone, with no model to prefer what is usual."""
    draw = random.Random(format)
    for _ in range(cases(6, 200)):
        grammar = grammars.grammar(ReplyForm(json.dumps({"type": "string", "format": format})))
        ids: list[int] = []
        for _ in range(400):
            bits = int.from_bytes(grammar.masks([])[0], "little")
            token = draw.choice([id for id in range(2048) if bits >> id & 1])
            if token == 1:
                break
            grammar.advance([token])
            ids.append(token)
        else:
            continue  # a fraction of a second may have any number of digits
        decoder = chat.reply_decoder()
        text = json.loads(decoder.add(ids).text + decoder.finish(is_cut=False).text)
        match format:
            case "date":
                if not text.startswith("0000"):  # the calendar of datetime begins later
                    date.fromisoformat(text)
            case "time":
                _read(f"2024-01-01T{text}")
            case "date-time":
                if not text.startswith("0000"):
                    _read(text)
            case _:
                labels = text.split(".")
                assert len(text) <= 253
                assert all(0 < len(each) < 64 and each.strip("-") == each for each in labels)


def _read(text: str) -> None:
    """Raises ValueError. Fractions are cut to what datetime holds."""
    head, _, rest = text.upper().partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    datetime.fromisoformat(head + (f".{rest[:digits][:6]}{rest[digits:]}" if rest else ""))


@pytest.mark.parametrize(
    ("schema", "value", "other"),
    [
        ({"type": "array", "items": {"format": "date"}}, ["2024-02-29"], ["2023-02-29"]),
        ({"type": "array", "prefixItems": [{"format": "date"}]}, ["2024-02-29"], ["2023-02-29"]),
        ({"anyOf": [{"type": "null"}, {"type": "string", "format": "date"}]}, "2024-02-29", "2023-02-29"),
        ({"$ref": "#/$defs/day", "$defs": {"day": {"format": "date"}}}, "2024-02-29", "2023-02-29"),
        ({"format": "date", "pattern": "^2024", "allOf": [{"pattern": "9$"}]}, "2024-02-29", "2024-02-28"),
        ({"format": "date", "allOf": [{"format": "date"}]}, "2024-02-29", "2023-02-29"),
        ({"additionalProperties": {"format": "time"}}, {"at": "12:00:00Z"}, {"at": "12:00:60Z"}),
    ],
)
def test_a_format_is_found_wherever_a_schema_may_be(
    schema: dict[str, Any], value: Any, other: Any, chat: ChatFormat, grammars: Grammars
) -> None:
    assert is_allowed(schema, value, chat, grammars)
    assert not is_allowed(schema, other, chat, grammars)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"format": {"type": "string"}}},
        {"const": {"format": "date"}, "enum": [{"format": "date"}], "default": {"format": "time"}},
        {"format": "email"},
        {"format": {"$ref": "#"}},
        {"items": True, "properties": [], "anyOf": {}},
        True,
    ],
)
def test_everything_else_stays_as_it_is(schema: Any) -> None:
    assert with_exact_formats(schema) == schema
