"""A connection to SQLite as the store needs it, and what SQLite's errors mean for the store."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

BUSY_TIMEOUT_S = 5.0
"""Transactions of this program take milliseconds; whoever holds the database longer is another one."""
JOURNAL_KEPT_BYTES = 16 * 1024 * 1024
CACHED_PAGES_BYTES = 256 * 1024
"""The system caches the file anyway: with SQLite's own 2 MB nothing is found or listed sooner, and an evening of
chatting looks like a leak until they are full."""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNWRITABLE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_PROTOCOL,
}


class DamagedFileError(sqlite3.DatabaseError):
    """What the store itself finds wrong with a file that SQLite can open."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection to a file, or to memory, that has changed nothing yet. Used by the thread that opens it."""
    connection = _connection(":memory:" if path is None else os.fspath(path))
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def prepare_to_write(connection: sqlite3.Connection) -> None:
    """From here on writers do not stop readers, and "written" means written. Raises sqlite3.Error."""
    # Where the file system cannot do it (a network drive), SQLite keeps its older journal and says nothing.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_KEPT_BYTES}")
    connection.execute(f"PRAGMA cache_size = {-CACHED_PAGES_BYTES // 1024}")
    # Without these a "sync" on a Mac ends in the drive's own cache.
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that does not change the file and reads whatever can be reached of it.

    Raises OSError or sqlite3.Error.
    """
    if not path.is_file() or not path.stat().st_size:
        # A pipe would keep us waiting for ever; beside an empty file SQLite deletes the journal.
        raise FileNotFoundError(errno.ENOENT, "there is nothing to read", os.fspath(path))
    uri, journal = path.as_uri(), path.with_name(f"{path.name}-wal")
    if journal.exists():
        # Without a place for its shared memory, in a folder that cannot be written, SQLite cannot read it.
        with suppress(sqlite3.OperationalError):
            return _readable(f"{uri}?mode=ro")
    return _readable(f"{uri}?immutable=1")


def _readable(uri: str) -> sqlite3.Connection:
    connection = _connection(uri, is_uri=True)
    try:
        # Of a file that was cut short SQLite then takes its own size for the truth, not what its header says.
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _connection(name: str, is_uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(name, timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=is_uri)
    # A flipped byte in a text is one wrong character, not an error.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is not, or no longer, a sound database."""
    return _kind(error) in _DAMAGED


def what_is_wrong(connection: sqlite3.Connection) -> str:
    """The first thing that is wrong in any page or index; empty if all are sound. Raises sqlite3.Error."""
    try:
        found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        return str(error)
    return "" if found == "ok" else found


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection was in the way for longer than `BUSY_TIMEOUT_S`."""
    return _kind(error) in _BUSY


def is_unwritable(error: sqlite3.Error) -> bool:
    """Whether the place, not the database, is the trouble: full, read-only, gone."""
    return _kind(error) in _UNWRITABLE


def _kind(error: sqlite3.Error) -> int | None:
    """The primary code; None for an error of the Python module itself."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
