"""Exports and imports of chats, under the paths that a person types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from app.store import transfer
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat, Imported
from models.errors import PathError
from models.paths import expanded

MAX_NAME_CHARACTERS = 60


def export_chat(store: ChatStore, chat: Chat, name: str | None) -> Path:
    """Write a chat with all its versions to a file, as JSON if the name says so, else as Markdown.

    name: None makes an unused one from the title. Returns the path. Raises StoreError.
    """
    return _export(store, [chat.id], _unused_path(chat.title) if name is None else _path(name))


def export_chats(store: ChatStore, chat_ids: Sequence[int], name: str) -> Path:
    """Write several chats to one file, as `export_chat` does. Returns the path. Raises StoreError."""
    return _export(store, chat_ids, _path(name))


def _export(store: ChatStore, chat_ids: Sequence[int], path: Path) -> Path:
    export = transfer.export_json if transfer.is_json(path) else transfer.export_markdown
    transfer.write_file(path, export(store, chat_ids), may_replace=False)
    return path


def import_chats(store: ChatStore, name: str) -> Imported:
    """Add the chats of an exported file. Raises StoreError."""
    return store.import_new(transfer.read_file(_path(name)))


def imported_line(imported: Imported) -> str:
    """What an import did, as a sentence."""
    added, known, grown = (len(chats) for chats in imported)
    there = "1 chat was already here" if known == 1 else f"{known} chats were already here"
    if known and not (added or grown):
        return f"Nothing new to import: {there}."
    parts = [f"Imported {added} chat{'s' * (added != 1)}"] if added or not grown else []
    parts += [f"added what is new to {grown} chat{'s' * (grown != 1)}"] if grown else []
    parts += [there] if known else []
    line = "; ".join(parts)
    return f"{line[0].upper()}{line[1:]}."


def _path(name: str) -> Path:
    try:
        return expanded(name.strip("\"'"))
    except PathError as error:
        raise StoreError(str(error)) from None


def _unused_path(title: str) -> Path:
    name = re.sub(r"[^\w-]+", "-", title).strip("-")[:MAX_NAME_CHARACTERS] or "chat"
    names = (f"{name}{suffix}.md" for suffix in ("", *(f"-{number}" for number in range(2, 10_000))))
    return next(path for path in map(Path, names) if not path.exists())
