"""Open the database of chats, whatever is found in its place.

There is always something to work with. What cannot be used is left as it is or, if it is damaged, put aside
under another name; it is never deleted. Then a sentence says so.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from app.store.aside import finish_putting_aside, put_aside
from app.store.connection import (
    DamagedFileError,
    connect,
    connect_to_read,
    is_busy,
    is_damage,
    prepare_to_write,
    what_is_wrong,
)
from app.store.rescue import copy_rows
from app.store.schema import MIGRATIONS, TABLES, migrate, version_of
from app.store.search import prepare_search
from app.system.files import LOCK_WAIT_S, Identity, UnusableFileError, identity, make_private_file, opening_alone

CHECKED_BYTES = 16 * 1024 * 1024
"""Up to this size every page is checked at the start, in about 30 ms; in a larger file damage shows on the way."""

HEADER_BYTES = 100
"""Of every SQLite file."""
PAGE_BYTES_AT = slice(16, 18)
"""Where the header says how large a page is; 1 means 65,536, of which ours never are."""

UNSAVED = "What is said now stays only until Slipstream ends; export a chat to keep it."


@dataclass(frozen=True, slots=True)
class Opened:
    """A database of this version to read from and write to."""

    connection: sqlite3.Connection
    notice: str | None
    """What a person has to know, in a sentence; None: all is well."""
    identity: Identity | None
    """None: the database is in memory and ends with the process."""


def open_database(path: Path, damaged: Identity | None = None) -> Opened:
    """The database at `path`, made if it is missing; in memory if that is all that can be had. Never raises.

    `damaged`: this file has turned out to be damaged, if it is still the one at `path`.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with opening_alone(path):
            finish_putting_aside(path)
            make_private_file(path)
            return _exchanged(path) if damaged and damaged == identity(path) else _open_file(path)
    except (OSError, sqlite3.Error, UnusableFileError) as error:
        return _copy_in_memory(path, f"Chats are not saved: {_reason(path, error)}. {UNSAVED}")


def open_in_memory() -> Opened:
    """A database that nobody keeps."""
    return Opened(_empty_in_memory(), None, None)


def continue_in_memory(connection: sqlite3.Connection, path: Path, error: Exception) -> Opened:
    """Go on with what `connection` can still read, when its file can no longer be written."""
    return Opened(_copied(connection), f"Chats are no longer saved: {_reason(path, error)}. {UNSAVED}", None)


def move_back(connection: sqlite3.Connection, path: Path) -> Opened:
    """Write the database again where its file was deleted under it. Raises what opening can."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with opening_alone(path):
        if not os.path.lexists(path):
            make_private_file(path)
            connection.execute("VACUUM INTO ?", (os.fspath(path),))
        make_private_file(path)
        return _open_file(path)


def _open_file(path: Path) -> Opened:
    try:
        return Opened(_sound_connection(path), None, identity(path))
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
    return _exchanged(path)


def _exchanged(path: Path) -> Opened:
    notice = put_aside(path)
    return Opened(_sound_connection(path), notice, identity(path))


def _sound_connection(path: Path) -> sqlite3.Connection:
    """Raises OSError, UnusableFileError or sqlite3.Error, for a damaged file one that `is_damage`."""
    _refuse_cut_file(path)
    connection = connect(path)
    try:
        _check_version(connection, path)
        _check_pages(connection, path)
        prepare_to_write(connection)
        migrate(connection, path)
        _check_columns(connection, path)
        prepare_search(connection)
    except UnicodeDecodeError as error:
        connection.close()
        # Python cannot read SQLite's own message when that quotes a damaged name.
        raise DamagedFileError(f"{path}: {error}") from error
    except (sqlite3.Error, OSError, UnusableFileError):
        connection.close()
        raise
    return connection


def _refuse_cut_file(path: Path) -> None:
    """Refuse what SQLite takes for something else.

    An empty file, or one of a single byte, is a new database to it, and the journal beside it of no use. What is
    missing of the last page reads as zeros; only beside a journal is that as it may be.
    """
    size, journal = path.stat().st_size, path.with_name(f"{path.name}-wal")
    has_journal = journal.exists() and journal.stat().st_size > 0
    if size == 0:
        if has_journal:
            raise DamagedFileError(f"{path} is empty, its journal is not")
        return
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise DamagedFileError(f"{path} ends within its header")
    page_bytes = int.from_bytes(header[PAGE_BYTES_AT]) or 1
    if size % page_bytes and not has_journal:
        raise DamagedFileError(f"{path} ends within a page")


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = version_of(connection)
    if version > len(MIGRATIONS):
        raise UnusableFileError(
            f"{path} was written by a newer Slipstream (its version is {version}, this one knows "
            f"{len(MIGRATIONS)}); chats in it can be read and exported, but update Slipstream to go on with them"
        )
    is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version < 0 or (version == 0 and not is_empty):
        raise DamagedFileError(f"{path} is not a database of chats")


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    # Not the quick check: what it passes over in an index would lie there until somebody comes across it.
    if path.stat().st_size <= CHECKED_BYTES and (found := what_is_wrong(connection)):
        raise DamagedFileError(found)


def _check_columns(connection: sqlite3.Connection, path: Path) -> None:
    for table, columns in TABLES.items():
        try:
            connection.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 0")
        except sqlite3.OperationalError as error:
            raise DamagedFileError(f"{path}: {error}") from error


def _copy_in_memory(path: Path, notice: str) -> Opened:
    try:
        source = connect_to_read(path)
    except (OSError, sqlite3.Error, UnicodeDecodeError):
        return Opened(_empty_in_memory(), notice, None)
    try:
        return Opened(_copied(source), notice, None)
    finally:
        source.close()


def _copied(source: sqlite3.Connection) -> sqlite3.Connection:
    memory = _empty_in_memory()
    copy_rows(source, memory)
    return memory


def _empty_in_memory() -> sqlite3.Connection:
    memory = connect(None)
    migrate(memory, None)
    prepare_search(memory)
    return memory


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, BlockingIOError):
        return f"another Slipstream has been opening {path} for more than {LOCK_WAIT_S:.0f} s"
    if isinstance(error, OSError):
        return f"{error.filename or path}: {error.strerror}"
    if isinstance(error, sqlite3.Error) and is_busy(error):
        return f"another program holds {path} locked"
    return f"{path}: {error}" if isinstance(error, sqlite3.Error) else str(error)
