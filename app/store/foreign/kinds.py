"""Recognises exports of other programs by what they contain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from app.store.errors import ImportRefusedError
from app.store.foreign.chatgpt import read_chatgpt
from app.store.foreign.claude import read_claude
from app.store.foreign.conversation import Conversation
from app.store.foreign.llm import read_llm
from app.store.foreign.messages import is_message, read_message_lists, read_messages

READABLE = (
    "Slipstream imports its own exports (.md, .json), those of ChatGPT and Claude (.zip, conversations.json), the "
    "output of `llm logs --json`, oterm's store.db and exports, and JSON lists of messages with role and content."
)
MAX_SHOWN_NAMES, MAX_SHOWN_CHARACTERS = 6, 40
"""Of an object of an unknown kind, in the error."""


def read_json(content: Any, name: str) -> list[Conversation]:
    """The conversations in decoded JSON. name: its source, for errors. Raises ImportRefusedError."""
    rows = _rows(content)
    for is_kind, read in _KINDS:
        if rows and all(map(is_kind, rows)):
            return list(read(rows, name))
    raise ImportRefusedError(f"{name}: this JSON is of an unknown kind, {_described(content)}. {READABLE}")


def _rows(content: Any) -> list[Any]:
    """The conversations or messages in a file, whatever they are wrapped in."""
    if isinstance(content, dict) and isinstance(content.get("conversations"), list):
        rows: list[Any] = content["conversations"]
        return [content] if rows and all(map(is_message, rows)) else rows
    return content if isinstance(content, list) else [content]


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda row: isinstance(row, dict) and all(name in row for name in names)


_KINDS: Sequence[tuple[Callable[[Any], bool], Callable[[Sequence[Any], str], Iterator[Conversation]]]] = (
    (_has("mapping"), read_chatgpt),
    (_has("chat_messages"), read_claude),
    (_has("prompt", "response"), read_llm),
    (is_message, read_messages),
    (_has("messages"), read_message_lists),
    (_has("conversations"), read_message_lists),
)


def _described(content: Any) -> str:
    """The kind of some JSON, for an error."""
    if isinstance(content, list):
        first = content[0] if content else None
        what = "a list" if isinstance(first, list) else _described(first)
        return f"a list that begins with {what}" if content else "an empty list"
    if isinstance(content, dict):
        names = ", ".join(repr(each[:MAX_SHOWN_CHARACTERS]) for each in list(content)[:MAX_SHOWN_NAMES])
        return f"an object with {names}" if names else "an empty object"
    return "a text" if isinstance(content, str) else "a single value"
