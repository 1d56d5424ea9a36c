"""Moves a damaged database aside, never deletes it, and continues with a new one that contains what is readable.

The new file is completed first and renamed last, so that after a power cut either the damaged file or the rescued
one is there.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from app.store.connection import connect, connect_to_read
from app.store.rescue import Rescued, copy_rows
from app.store.schema import migrate
from app.system.files import make_private_file, sync_folder


def put_aside(path: Path) -> str:
    """Replace the file at `path` with what can be rescued from it. Returns a sentence for the person.

    Raises OSError or sqlite3.Error; the damaged file is then still in place.
    """
    rescued_path = _rescued_path(path)
    rescued_path.unlink(missing_ok=True)
    try:
        make_private_file(rescued_path)
        rescued = _rescue(path, rescued_path)
    except (OSError, sqlite3.Error):
        rescued_path.unlink(missing_ok=True)
        raise
    aside = _free_name(path)
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    finish_putting_aside(path)
    return _notice(path, aside, rescued)


def finish_putting_aside(path: Path) -> None:
    """The second half of the replacement; also completes one that a power cut interrupted. Raises OSError."""
    rescued_path = _rescued_path(path)
    if not os.path.lexists(path) and rescued_path.exists():
        rescued_path.rename(path)
        sync_folder(path.parent)


def _rescued_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.rescued")


def _free_name(path: Path) -> Path:
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.corrupt-{number}")):
        number += 1
    return aside


def _rescue(damaged: Path, rescued_path: Path) -> Rescued:
    target = connect(rescued_path)
    try:
        # An incomplete file is made again from the start, so it needs no journal on disk.
        target.execute("PRAGMA journal_mode = MEMORY")
        migrate(target, None)
        return _copy_readable(damaged, target)
    finally:
        target.close()


def _copy_readable(damaged: Path, target: sqlite3.Connection) -> Rescued:
    try:
        source = connect_to_read(damaged)
    except (OSError, sqlite3.DatabaseError, UnicodeDecodeError):
        return Rescued(0, 0)
    try:
        return copy_rows(source, target)
    finally:
        source.close()


def _notice(path: Path, aside: Path, rescued: Rescued) -> str:
    saved = f"{rescued.chats} chats with {rescued.messages} messages" if rescued.messages else "No messages"
    return f"The chats in {path} were damaged. {saved} could be rescued. The damaged file is now {aside.name}."
