"""Export and import of chats. An import restores branches and figures exactly.

Exports of other programs are read as well; any other file is refused.

Exports contain no characters that could steer the terminal of a person who prints them.

Messages have no id in a file: `parent` is the position of an earlier message of the same chat, from 0.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import msgspec

from app.store import markdown
from app.store.chat_store import ChatStore
from app.store.errors import ImportRefusedError, StoreError
from app.store.foreign import kinds, oterm
from app.store.foreign.conversation import Conversation, as_chat
from app.store.records import NewChat, NewMessage, StoredMessage
from app.text.sanitise import sanitise_json
from mlx_engine.files.atomic import replace_file

FORMAT = "slipstream-chats"
VERSION = 1
MOST_BYTES = 1 << 30
_ZIP_HEADER = b"PK\3\4"
_CONVERSATIONS = re.compile(r"(?:\A|/)conversations(?:-\d+)?\.json\Z")


class _ExportHeader(msgspec.Struct):
    format: str
    version: int


class _ChatFile(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: int
    chats: tuple[NewChat, ...]


def export_json(store: ChatStore, chat_ids: Iterable[int], is_whole: bool = True) -> str:
    """Chats as JSON; without `is_whole`, only the messages that are shown. Raises StoreError."""
    chats = tuple(exported(store, chat_id, is_whole) for chat_id in chat_ids)
    json = msgspec.json.format(msgspec.json.encode(_ChatFile(FORMAT, VERSION, chats)), indent=1).decode()
    return sanitise_json(json) + "\n"


def is_json(path: Path) -> bool:
    """Whether a file with this name is written as JSON, and not as Markdown."""
    return path.suffix.lower() == ".json"


def export_markdown(store: ChatStore, chat_ids: Iterable[int], is_whole: bool = True) -> str:
    """Chats as Markdown that people can read and that can be imported. Raises StoreError."""
    return "".join(markdown.write_chat(exported(store, chat_id, is_whole)) for chat_id in chat_ids)


def read_file(path: Path) -> Sequence[NewChat]:
    """Read the chats in a file of either kind. Raises ImportRefusedError."""
    try:
        if not path.is_file():
            raise ImportRefusedError(f"{path}: there is no such file.")
        if path.stat().st_size > MOST_BYTES:
            raise ImportRefusedError(f"{path} is larger than {MOST_BYTES >> 20} MiB, so it is not an export.")
        return read_bytes(path.read_bytes(), str(path))
    except OSError as error:
        raise ImportRefusedError(f"{path} cannot be read: {error.strerror}.") from error


def read_bytes(data: bytes, name: str) -> Sequence[NewChat]:
    """Read the chats in `data`, of this program or another. name: its source, for errors.

    Raises ImportRefusedError.
    """
    if data.startswith(oterm.SQLITE_HEADER):
        return _chats_of(oterm.read_oterm_database(data, name))
    if data.startswith(_ZIP_HEADER):
        return [chat for part in _unzipped(data, name) for chat in read_bytes(part, name)]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImportRefusedError(f"{name} is not valid UTF-8 (byte {error.start}). Export it again.") from error
    if text.lstrip().startswith(("{", "[")):
        chats = _read_json(text, name)
    elif oterm.is_oterm_text(text):
        chats = _chats_of([oterm.read_oterm_text(text)])
    elif markdown.OPENING in text:
        chats = markdown.read_chats(text, name)
    else:
        raise ImportRefusedError(f"{name}, line 1: this is not a chat exported by Slipstream. {kinds.READABLE}")
    for number, chat in enumerate(chats):
        _check(chat, f"{name}, chat {number + 1}")
    return chats


def exported(store: ChatStore, chat_id: int, is_whole: bool = True) -> NewChat:
    """A chat in the form that can be imported. Raises StoreError."""
    chat = store.chat(chat_id)
    messages = store.messages(chat_id) if is_whole else store.path(chat_id)
    return NewChat(
        title=chat.title,
        model=chat.model,
        drafter=chat.drafter,
        params=chat.params,
        created_s=chat.created_s,
        updated_s=chat.updated_s,
        messages=tuple(_positioned(messages)),
    )


def _positioned(messages: Sequence[StoredMessage]) -> Iterable[NewMessage]:
    positions = {message.id: position for position, message in enumerate(messages)}
    for message in messages:
        yield NewMessage(
            parent=None if message.parent_id is None else positions[message.parent_id],
            role=message.role,
            text=message.text,
            thinking=message.thinking,
            # Nothing will finish this reply where it is imported.
            state="interrupted" if message.state == "generating" else message.state,
            created_s=message.created_s,
            is_shown=message.is_shown,
            stats=message.stats,
            typed_characters=message.typed_characters,
        )


def _chats_of(conversations: Iterable[Conversation]) -> Sequence[NewChat]:
    """The conversations of another program that have messages, the one used last at the end."""
    chats = [as_chat(conversation, time.time()) for conversation in conversations]
    return sorted((chat for chat in chats if chat.messages), key=lambda chat: chat.updated_s)


def _unzipped(data: bytes, name: str) -> Iterable[bytes]:
    """The files of conversations in an archive, as ChatGPT and Claude send it. Raises ImportRefusedError."""
    try:
        with ZipFile(BytesIO(data)) as archive:
            files = [file for file in archive.infolist() if _CONVERSATIONS.search(file.filename)]
            if not files:
                raise ImportRefusedError(
                    f"{name}: there is no conversations.json in this archive. {kinds.READABLE}"
                )
            if sum(file.file_size for file in files) > MOST_BYTES:
                raise ImportRefusedError(
                    f"{name}: the conversations in it are larger than {MOST_BYTES >> 20} MiB."
                )
            return [archive.read(file) for file in files]
    except (BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ImportRefusedError(f"{name}: this archive cannot be read: {error}. Download it again.") from error


def _read_json(text: str, name: str) -> Sequence[NewChat]:
    content = _json_values(text, name)
    if not (isinstance(content, dict) and content.keys() & {"format", "chats"}):
        return _chats_of(kinds.read_json(content, name))
    _check_head(_decoded(text, _ExportHeader, name), name)
    file: _ChatFile = _decoded(text, _ChatFile, name)
    return file.chats


def _json_values(text: str, name: str) -> Any:
    """The decoded JSON; several values, one on each line, as a list."""
    try:
        return _decoded(text, Any, name)
    except ImportRefusedError:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) < 2 or not lines[0].rstrip().endswith("}"):
            raise
        return [_decoded(line, Any, f"{name}, line {number}") for number, line in enumerate(lines, 1)]


def _check_head(head: _ExportHeader, name: str) -> None:
    if head.format != FORMAT:
        raise ImportRefusedError(f"{name} is not an export of Slipstream: its format is {head.format!r}.")
    if head.version != VERSION:
        raise ImportRefusedError(
            f"{name}: its format is version {head.version}, but this Slipstream reads version {VERSION}. "
            "Update Slipstream."
        )


def _decoded(text: str, kind: Any, name: str) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ImportRefusedError(f"{name}: {error}. Nothing was imported.") from error
    except RecursionError as error:
        raise ImportRefusedError(f"{name}: nested too deeply. Nothing was imported.") from error


def _check(chat: NewChat, location: str) -> None:
    """Checks what the types cannot express. Raises ImportRefusedError."""
    shown: set[int | None] = set()
    for position, message in enumerate(chat.messages):
        where = f"{location}, message {position + 1}"
        if message.parent is not None and not 0 <= message.parent < position:
            raise ImportRefusedError(f"{where}: its parent {message.parent} is not an earlier message.")
        if message.is_shown and message.parent in shown:
            raise ImportRefusedError(f"{where}: another reply to the same message is already shown.")
        if message.is_shown:
            shown.add(message.parent)


def write_file(path: Path, text: str, may_replace: bool, advice: str = "Choose another name.") -> None:
    """Write an export, whole or not at all, readable only by its owner. Raises StoreError.

    advice: what to do if the file exists and may not be replaced.
    """
    if not may_replace and os.path.lexists(path):
        raise StoreError(f"{path} already exists. {advice}")
    try:
        replace_file(path, text)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from error
