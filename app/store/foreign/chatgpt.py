"""ChatGPT's conversations.json: a list of conversations, each a tree of nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.store.foreign.conversation import Conversation, Entry
from app.store.foreign.values import ROLES, items, joined, mapping, paragraphs, seconds, string


def read_chatgpt(rows: Sequence[Any], name: str) -> Iterator[Conversation]:
    """The conversations in decoded JSON."""
    for row in rows:
        nodes = {id: node for id, node in mapping(row["mapping"]).items() if isinstance(node, dict)}
        entries = [_entry(id, node) for id, node in nodes.items()]
        yield Conversation(
            entries=sorted(entries, key=lambda entry: entry.created_s),
            title=string(row.get("title")),
            model=next(filter(None, map(_model, reversed(nodes.values()))), ""),
            created_s=seconds(row.get("create_time")),
            updated_s=seconds(row.get("update_time")),
            last_id=string(row.get("current_node")) or None,
        )


def _model(node: Mapping[str, Any]) -> str:
    return string(mapping(mapping(node.get("message")).get("metadata")).get("model_slug"))


def _entry(id: str, node: Mapping[str, Any]) -> Entry:
    message = mapping(node.get("message"))
    role = ROLES.get(string(mapping(message.get("author")).get("role")), "")
    is_hidden = mapping(message.get("metadata")).get("is_visually_hidden_from_conversation")
    is_for_tool = message.get("recipient") not in (None, "all")
    text, thinking = _content(mapping(message.get("content")))
    return Entry(
        id=id,
        parent=string(node.get("parent")) or None,
        role="" if is_hidden or is_for_tool else role,
        text=text,
        thinking=thinking,
        created_s=seconds(message.get("create_time")),
    )


def _content(content: Mapping[str, Any]) -> tuple[str, str]:
    """Text and thoughts of a message."""
    if not content or content.get("content_type") == "user_editable_context":
        return "", ""
    if content.get("content_type") == "thoughts":
        thoughts = map(mapping, items(content.get("thoughts")))
        return "", paragraphs(string(thought.get("content")) for thought in thoughts)
    parts = content.get("parts")
    return joined(parts if isinstance(parts, list) else [content]), ""
