"""Gemma 4's notation for calls of tools and their results.

What is written here consists of marks, which become their ids, and of texts, which are encoded so that no text can
become a mark. There is no escaping: a string is whatever lies between two quote marks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, NoReturn

from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import ToolCall

MAX_DEPTH = 64
"""Of objects and arrays within each other."""


class Mark(Enum):
    """A control token of the notation, by its spelling."""

    TOOL = "<|tool>"
    TOOL_END = "<tool|>"
    CALL = "<|tool_call>"
    CALL_END = "<tool_call|>"
    RESULT = "<|tool_response>"
    RESULT_END = "<tool_response|>"
    QUOTE = '<|"|>'
    CHANNEL = "<|channel>"
    CHANNEL_END = "<channel|>"


Part = Mark | str
Parts = Iterator[Part]


def written_call(call: ToolCall) -> Parts:
    """Raises RequestError if the arguments are no JSON object."""
    arguments = parsed_object(call.arguments, f"The arguments of the call of {call.name[:100]}")
    yield Mark.CALL
    yield f"call:{call.name}"
    yield from written(arguments)
    yield Mark.CALL_END


def written_result(name: str, text: str) -> Parts:
    """The result of a call, always a string."""
    yield Mark.RESULT
    yield f"response:{name}{{value:"
    yield from quoted(text)
    yield "}"
    yield Mark.RESULT_END


def written_thought(text: str) -> Parts:
    """Thoughts from before a call."""
    yield Mark.CHANNEL
    yield f"thought\n{text}\n"
    yield Mark.CHANNEL_END


def opened_thought() -> Parts:
    """What lets the model think."""
    yield Mark.CHANNEL
    yield "thought\n"


def written(value: Any, has_quoted_keys: bool = False) -> Parts:
    """A value as in JSON, but with marks for quotes and sorted keys, which have no quotes in calls."""
    match value:
        case None:
            yield "null"
        case bool():
            yield "true" if value else "false"
        case str():
            yield from quoted(value)
        case dict():
            yield "{"
            for index, (key, inner) in enumerate(in_order(value)):
                yield "," if index else ""
                yield from quoted(key) if has_quoted_keys else (key,)
                yield ":"
                yield from written(inner, has_quoted_keys)
            yield "}"
        case list():
            yield "["
            for index, inner in enumerate(value):
                yield "," if index else ""
                yield from written(inner, has_quoted_keys)
            yield "]"
        case _:
            yield str(value)


def quoted(text: Any) -> Parts:
    """A string between its marks."""
    yield Mark.QUOTE
    yield str(text)
    yield Mark.QUOTE


def in_order(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """By key, as Jinja's dictsort: small and capital letters alike, ties in the given order."""
    return sorted(values.items(), key=lambda item: item[0].lower())


def parsed_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object; empty text is an empty one. name: begins the message of RequestError."""
    try:
        value = json.loads(text or "{}", parse_constant=_refuse_constant)
        depth = _depth(value)
    except (ValueError, RecursionError):
        raise RequestError(f"{name} cannot be read: not valid JSON. Send a JSON object.") from None
    if not isinstance(value, dict):
        raise RequestError(f"{name} cannot be read: a JSON {type(value).__name__}. Send a JSON object.")
    if depth > MAX_DEPTH:
        raise RequestError(f"{name} cannot be read: nested more than {MAX_DEPTH} levels deep.")
    return value


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0) if isinstance(value, dict | list) else 0


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
