"""Helpers of the store tests: a clock that is set by hand, and shorthand for messages and replies."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.store import steps
from app.store.chat_store import ChatStore
from app.store.records import StoredMessage

IN_MEMORY = Path("/dev/shm")
"""Most tests are not about the disk, where each synced write takes milliseconds."""


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None) as folder:
        yield Path(folder).resolve()


@dataclass
class Clock:
    """A clock that only moves when it is told to."""

    now_s: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


def texts(store: ChatStore, chat_id: int) -> list[str]:
    """The texts of the version that is shown."""
    return [message.text for message in store.path(chat_id)]


def write(store: ChatStore, chat_id: int, parent_id: int | None, text: str) -> StoredMessage:
    """Add a message without a reply, as an import can."""
    return store._database.write(
        lambda connection: steps.add_user_message(connection, chat_id, parent_id, text, store._now())
    )


def say(store: ChatStore, chat_id: int, text: str) -> int:
    """Add a message without a reply to the end of the shown version. Returns its id."""
    path = store.path(chat_id)
    return write(store, chat_id, path[-1].id if path else None, text).id


def answer(store: ChatStore, parent_id: int, text: str) -> int:
    """Add a complete reply. Returns its id."""
    reply = store.begin_reply(parent_id)
    store.grow_reply(reply.id, text)
    return store.finish_reply(reply.id, "complete").id


def chat_of_turns(store: ChatStore, turns: int, title: str = "") -> int:
    """Add a chat with this many questions and replies. Returns its id."""
    chat = store.create_chat(title)
    for turn in range(turns):
        answer(store, say(store, chat.id, f"question {turn} " + "why " * 20), f"answer {turn} " + "because " * 40)
    return chat.id


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    """The rows that another program reads from the file."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def last_chat(path: Path) -> list[tuple[object, ...]]:
    """(role, text, state) of every message of the most recently used chat, oldest first.

    Reads without the store, which would mark the running replies of other processes as interrupted.
    """
    last = "SELECT id FROM chat WHERE deleted = 0 ORDER BY activity DESC LIMIT 1"
    return rows(path, f"SELECT role, text, state FROM message WHERE chat_id = ({last}) ORDER BY id")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While open, another program has the database locked."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


def is_sound(path: Path) -> bool:
    """Whether SQLite finds no problem in the file."""
    return rows(path, "PRAGMA integrity_check") == [("ok",)]


def damaged(content: bytes) -> bytes:
    """A file without its last pages: SQLite notices, and most messages are still readable."""
    return content[: len(content) // 4096 * 3 // 4 * 4096]


@contextmanager
def full_disk() -> Iterator[Callable[[], None]]:
    """While open, this process can write no byte to any file. Gives what ends that early."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

    def free() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    try:
        yield free
    finally:
        free()


FILLER = "filler"


@contextmanager
def small_disk(folder: Path, size: str = "8m") -> Iterator[Path]:
    """A file system of its own at `folder`, where this is allowed; the test is skipped elsewhere."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        is_mounted = False
    if not is_mounted:
        pytest.skip("only root can mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(folder: Path) -> None:
    """Fill the disk that `folder` is on, with a file called `FILLER`, to the last byte."""
    with (folder / FILLER).open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            with suppress(OSError):
                while file.write(b"x" * size):
                    pass
