"""Opens the database of chats, whatever is at its path.

There is always something to work with. A file that cannot be used stays as it is; a damaged one is moved aside
under another name, and never deleted. A notice then says so.
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
from app.store.outage import note_changes
from app.store.rescue import copy_rows
from app.store.schema import MIGRATIONS, TABLES, migrate, version_of, write_copy
from app.store.search import prepare_search
from app.system.files import LOCK_WAIT_S, Identity, UnusableFileError, identity, make_private_file, opening_alone

CHECKED_BYTES = 16 * 1024 * 1024
"""Up to this size every page is checked at the start, in about 30 ms; in larger files damage shows up later."""

HEADER_BYTES = 100
"""The size of SQLite's header."""
PAGE_BYTES_AT = slice(16, 18)
"""Position of the page size in the header; 1 means 65,536, which ours never are."""

UNSAVED = (
    "They will be as soon as that works again. If it does not before Slipstream ends, new messages are lost: "
    "export a chat to keep it."
)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open database of the current version."""

    connection: sqlite3.Connection
    notice: str | None
    """A problem that the person should know about, as a sentence; None if there is none."""
    identity: Identity | None
    """None: the database is in memory and is lost when the process ends."""
    name: str | None = None
    """In memory: the name of the database that it is a copy of; None if there was none, or it has no name."""


def open_database(path: Path, damaged: Identity | None = None) -> Opened:
    """The database at `path`, created if it is missing; in memory if nothing else is possible. Never raises.

    damaged: the file that turned out to be damaged; it is replaced if it is still the one at `path`.
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
    """An empty database in memory, without a notice."""
    return Opened(_empty_in_memory(), None, None)


def continue_in_memory(connection: sqlite3.Connection, path: Path, error: Exception) -> Opened:
    """Continue in memory with what `connection` can still read, when its file can no longer be written."""
    notice = f"Chats are no longer saved: {_reason(path, error)}. {UNSAVED}"
    return Opened(_copied(connection), notice, None, _name_of(connection))


def open_again(path: Path, memory: sqlite3.Connection) -> Opened:
    """The file at `path`, now that it may be writable again; written anew from `memory` if there is none.

    Raises what opening can raise, and BlockingIOError if another process is opening the file.
    """
    if not os.path.lexists(path):
        return move_back(memory, path)
    with opening_alone(path, wait_s=0):
        finish_putting_aside(path)
        make_private_file(path)
        return _open_file(path)


def move_back(connection: sqlite3.Connection, path: Path) -> Opened:
    """Write the database again after its file was deleted. Raises what opening can raise."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with opening_alone(path):
        if not os.path.lexists(path):
            write_copy(connection, path)
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
    """Raises OSError, UnusableFileError or sqlite3.Error; for a damaged file, one that `is_damage` recognises."""
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
        # SQLite's own message quotes a damaged name, which Python cannot decode.
        raise DamagedFileError(f"{path}: {error}") from error
    except (sqlite3.Error, OSError, UnusableFileError):
        connection.close()
        raise
    return connection


def _refuse_cut_file(path: Path) -> None:
    """Raises DamagedFileError for files that SQLite would misinterpret.

    SQLite takes a file of 0 or 1 bytes for a new database and ignores the journal beside it. A truncated last page
    reads as zeros; that is only valid beside a journal.
    """
    size, journal = path.stat().st_size, path.with_name(f"{path.name}-wal")
    has_journal = journal.exists() and journal.stat().st_size > 0
    if size == 0:
        if has_journal:
            raise DamagedFileError(f"{path} is empty but its journal is not")
        return
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise DamagedFileError(f"{path} ends inside its header")
    page_bytes = int.from_bytes(header[PAGE_BYTES_AT]) or 1
    if size % page_bytes and not has_journal:
        raise DamagedFileError(f"{path} ends inside a page")


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = version_of(connection)
    if version > len(MIGRATIONS):
        raise UnusableFileError(
            f"{path} was written by a newer Slipstream (version {version}, this one knows {len(MIGRATIONS)}). "
            "You can read and export its chats; update Slipstream to continue them"
        )
    is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version < 0 or (version == 0 and not is_empty):
        raise DamagedFileError(f"{path} is not a database of chats")


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    # Not the quick check, which overlooks some damage in indexes.
    if path.stat().st_size <= CHECKED_BYTES and (problem := what_is_wrong(connection)):
        raise DamagedFileError(problem)


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
        return Opened(_noting_changes(_empty_in_memory()), notice, None)
    try:
        return Opened(_copied(source), notice, None, _name_of(source))
    finally:
        source.close()


def _copied(source: sqlite3.Connection) -> sqlite3.Connection:
    memory = _empty_in_memory()
    copy_rows(source, memory)
    return _noting_changes(memory)


def _noting_changes(memory: sqlite3.Connection) -> sqlite3.Connection:
    note_changes(memory)
    return memory


def _name_of(connection: sqlite3.Connection) -> str | None:
    try:
        return str(connection.execute("SELECT name FROM store").fetchone()[0])
    except (sqlite3.Error, TypeError):
        return None


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
        return f"another program has locked {path}"
    return f"{path}: {error}" if isinstance(error, sqlite3.Error) else str(error)
