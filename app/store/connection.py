"""SQLite connections with the settings the store needs, and what SQLite's errors mean for the store."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

BUSY_TIMEOUT_S = 5.0
"""This program's transactions take milliseconds; only another program locks the database for longer."""
JOURNAL_KEPT_BYTES = 16 * 1024 * 1024
CACHED_PAGES_BYTES = 256 * 1024
"""The system caches the file anyway. SQLite's default of 2 MB makes nothing faster, and until it is full, the
growing memory looks like a leak."""
SMALLEST_PAGE_BYTES, LARGEST_PAGE_BYTES = 512, 65536
"""The largest is written as 1."""

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
    """Damage that the store finds in a file which SQLite can open."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection to a file, or to memory, that has changed nothing yet. Belongs to the thread that opens it."""
    connection = _connection(":memory:" if path is None else os.fspath(path))
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def prepare_to_write(connection: sqlite3.Connection) -> None:
    """Let readers and writers work at the same time, and make commits reach the disk. Raises sqlite3.Error."""
    # On file systems that cannot do this (network drives), SQLite silently keeps its older journal.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_KEPT_BYTES}")
    connection.execute(f"PRAGMA cache_size = {-CACHED_PAGES_BYTES // 1024}")
    # Without these, a sync on macOS stops at the drive's own cache.
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA checkpoint_fullfsync = ON")


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that never changes the file and reads as much of it as possible.

    Raises OSError or sqlite3.Error.
    """
    if not path.is_file() or not path.stat().st_size:
        # Opening a pipe would block; beside an empty file SQLite deletes the journal.
        raise FileNotFoundError(errno.ENOENT, "there is nothing to read", os.fspath(path))
    uri, journal = path.as_uri(), path.with_name(f"{path.name}-wal")
    if journal.exists():
        # In a folder that cannot be written, SQLite has no place for shared memory and cannot read the journal.
        with suppress(sqlite3.OperationalError):
            return _readable(f"{uri}?mode=ro", path)
    return _readable(f"{uri}?immutable=1", path)


def _readable(uri: str, path: Path) -> sqlite3.Connection:
    connection = _connection(uri, is_uri=True)
    try:
        # With this, SQLite uses the real size of a truncated file instead of the size in its header.
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        connection.close()
        if _kind(error) == sqlite3.SQLITE_CORRUPT:
            return _of_its_real_size(path)
        raise
    return connection


def _of_its_real_size(path: Path) -> sqlite3.Connection:
    """The file in memory, with a header that makes SQLite use its real size.

    For an SQLite in defensive mode, which ignores `writable_schema`; macOS's own can be one. By
    sqlite.org/fileformat2.html, the size in the header counts only while the numbers at 24 and 92 are equal, and
    bytes 18 and 19 say whether there is a journal beside the file. Raises sqlite3.Error if this does not help.
    """
    content = bytearray(path.read_bytes())
    page_bytes = int.from_bytes(content[16:18], "big")
    content += bytes(-len(content) % (page_bytes if page_bytes >= SMALLEST_PAGE_BYTES else LARGEST_PAGE_BYTES))
    content[18:20] = b"\x01\x01"
    content[92:96] = bytes(byte ^ 0xFF for byte in content[24:28])
    connection = _connection(":memory:")
    try:
        connection.deserialize(content)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _connection(name: str, is_uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(name, timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=is_uri)
    # A flipped byte in a text becomes one wrong character instead of an error.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error means that the file is not a sound database."""
    return _kind(error) in _DAMAGED


def what_is_wrong(connection: sqlite3.Connection) -> str:
    """The first problem found in any page or index; empty if there is none. Raises sqlite3.Error."""
    try:
        result = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        return str(error)
    return "" if result == "ok" else result


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection held a lock for longer than `BUSY_TIMEOUT_S`."""
    return _kind(error) in _BUSY


def is_unwritable(error: sqlite3.Error) -> bool:
    """Whether the disk or folder is the problem, not the database: full, read-only, gone."""
    return _kind(error) in _UNWRITABLE


def _kind(error: sqlite3.Error) -> int | None:
    """The primary error code; None for an error of the Python module itself."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
