"""Lists of messages with a role and a content, alone or as part of conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.store.errors import ImportRefusedError
from app.store.foreign.conversation import Conversation, in_line
from app.store.foreign.values import ROLES, items, joined, seconds, string


def read_message_lists(rows: Sequence[Any], name: str) -> Iterator[Conversation]:
    """The conversations in decoded JSON, each with a list of messages. Raises ImportRefusedError."""
    for row in rows:
        messages = row["messages"] if "messages" in row else row["conversations"]
        for conversation in read_messages(items(messages), name):
            conversation.title = string(row.get("title")) or string(row.get("name"))
            conversation.model = string(row.get("model"))
            conversation.created_s = seconds(row.get("created_at"))
            conversation.updated_s = seconds(row.get("updated_at"))
            yield conversation


def read_messages(rows: Sequence[Any], name: str) -> Iterator[Conversation]:
    """The one conversation that these messages are. Raises ImportRefusedError."""
    spoken = []
    for number, row in enumerate(rows, 1):
        where = f"{name}, message {number}"
        if not is_message(row):
            raise ImportRefusedError(f"{where}: a role and a content are missing. Nothing was imported.")
        created_s = seconds(row.get("created_at")) or seconds(row.get("timestamp"))
        spoken.append((role_of(_speaker(row), where), joined(_body(row)), created_s))
    yield Conversation(in_line(spoken))


def is_message(row: Any) -> bool:
    """Whether it has a role and a content, whatever they are called."""
    return isinstance(row, dict) and _speaker(row) is not None and bool(_body(row))


def role_of(word: Any, where: str) -> str:
    """The role that another program's word means. Raises ImportRefusedError."""
    role = ROLES.get(string(word).lower())
    if role is None:
        raise ImportRefusedError(f"{where}: the role {word!r} is unknown. Use user, assistant or system.")
    return role


def _speaker(row: Mapping[str, Any]) -> Any:
    return next((row[key] for key in ("role", "from", "author") if isinstance(row.get(key), str)), None)


def _body(row: Mapping[str, Any]) -> list[Any]:
    """The content of a message, in parts; empty if there is none."""
    content: Any = next((row[key] for key in ("content", "value", "text") if key in row), [])
    return content if isinstance(content, list) else [content]
