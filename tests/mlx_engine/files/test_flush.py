"""Bytes reach the disk itself, also on macOS; its flush is a made-up number here."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from app.store.chat_store import ChatStore
from app.store.connection import connect, prepare_to_write
from app.system.files import sync_folder
from mlx_engine.files import flush
from mlx_engine.files.atomic import replace_file

F_FULLFSYNC = 51
"""On macOS."""


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the system, in order."""
    asked: list[str] = []
    monkeypatch.setattr(flush, "FULL_FLUSH", F_FULLFSYNC)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, command: asked.append(f"full {command}"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append("fsync"))
    return asked


def test_files_and_folders_are_flushed_to_the_disk_itself(tmp_path: Path, flushes: list[str]) -> None:
    replace_file(tmp_path / "chat.md", "text")
    sync_folder(tmp_path)
    assert flushes == ["full 51", "full 51"]


def test_a_file_system_that_cannot_gets_what_it_can(
    tmp_path: Path, flushes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, command: int) -> int:
        raise OSError(45, "Operation not supported")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    replace_file(tmp_path / "chat.md", "text")
    assert flushes == ["fsync"]


def test_elsewhere_there_is_only_fsync(
    tmp_path: Path, flushes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush, "FULL_FLUSH", None)
    replace_file(tmp_path / "chat.md", "text")
    assert flushes == ["fsync"]


def test_sqlite_flushes_the_stores_commits_in_the_same_way(tmp_path: Path) -> None:
    ChatStore.open(tmp_path / "chats.db").close()
    connection = connect(tmp_path / "chats.db")
    prepare_to_write(connection)
    values = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("fullfsync", "checkpoint_fullfsync")]
    connection.close()
    assert values == [1, 1]
