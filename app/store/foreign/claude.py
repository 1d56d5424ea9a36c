"""Claude's conversations.json: a list of conversations with their messages, which may form a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.store.foreign.conversation import Conversation, Entry
from app.store.foreign.values import ROLES, items, joined, mapping, not_imported, paragraphs, seconds, string


def read_claude(rows: Sequence[Any], name: str) -> Iterator[Conversation]:
    """The conversations in decoded JSON."""
    for row in rows:
        entries: list[Entry] = []
        for number, message in enumerate(map(mapping, items(row["chat_messages"]))):
            before = entries[-1].id if entries else None
            entries.append(_entry(message, str(number), before))
        yield Conversation(
            entries=entries,
            title=string(row.get("name")),
            model=string(row.get("model")),
            created_s=seconds(row.get("created_at")),
            updated_s=seconds(row.get("updated_at")),
            last_id=string(row.get("current_leaf_message_uuid")) or None,
        )


def _entry(message: Mapping[str, Any], number: str, before: str | None) -> Entry:
    """before: the message above it, in exports that do not say."""
    blocks = [mapping(block) for block in items(message.get("content"))]
    text = joined(block for block in blocks if block.get("type") != "thinking") or string(message.get("text"))
    return Entry(
        id=string(message.get("uuid")) or number,
        parent=string(message.get("parent_message_uuid")) or before,
        role=ROLES.get(string(message.get("sender")), ""),
        text=paragraphs((text, *_files(message))),
        thinking=paragraphs(string(block.get("thinking")) for block in blocks if block.get("type") == "thinking"),
        created_s=seconds(message.get("created_at")),
    )


def _files(message: Mapping[str, Any]) -> Iterator[str]:
    """The texts of attached files, and the names of those whose text is not in the export."""
    for file in map(mapping, items(message.get("attachments"))):
        text, name = string(file.get("extracted_content")), string(file.get("file_name"))
        yield f"{name or 'Attached text'}:\n\n{text}" if text else not_imported(file, "file")
    for file in map(mapping, items(message.get("files"))):
        yield not_imported(file, "file")
