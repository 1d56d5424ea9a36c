"""The database while the program runs: transactions, how durable each is, and how to continue when one fails.

If the disk fails, continues in memory; if the file is damaged, continues with what could be rescued. Either
happens only after a failed attempt, which is then repeated. The caller gets a result or a StoreError.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from app.store.connection import BUSY_TIMEOUT_S, is_busy, is_damage, is_unwritable, what_is_wrong
from app.store.errors import StoreBusyError, StoreError
from app.store.opening import Opened, continue_in_memory, move_back, open_database, open_in_memory
from app.store.schema import MIGRATIONS, version_of
from app.system.files import UnusableFileError, identity

T = TypeVar("T")
Action = Callable[[sqlite3.Connection], T]

FLUSH_TIMEOUT_S = 0.1
"""How long a write waits for another program if the next write can repeat it: the screen waits with it."""
_ATTEMPTS = 3
"""The file as it is, the rescued file, memory."""


class Database:
    """One process's access to the database, for the thread that opened it."""

    def __init__(self, path: Path | None) -> None:
        """path: None for one in memory that nobody keeps."""
        self._path = path.absolute() if path else Path(":memory:")
        self._is_durable: bool | None = None
        self._patience_s: float | None = None
        self._take(open_database(self._path) if path else open_in_memory())

    @property
    def notice(self) -> str | None:
        """A problem that the person should know about, as a sentence; None if there is none."""
        return self._opened.notice

    @property
    def is_saving(self) -> bool:
        """Whether there is a file; otherwise everything is lost when the process ends."""
        return self._opened.identity is not None

    def close(self) -> None:
        """Close; SQLite then merges its journal into the file."""
        self._opened.connection.close()

    def write(self, action: Action[T], is_durable: bool = True, patience_s: float | None = None) -> T:
        """Run `action` in a transaction that is written when this returns.

        If `is_durable`, it survives a power cut; otherwise only a killed process. Raises StoreError if nothing was
        written, and StoreBusyError after `patience_s` (None: `BUSY_TIMEOUT_S`).
        """
        return self._attempt(lambda: self._write_once(action, is_durable, patience_s))

    def read(self, action: Action[T]) -> T:
        """Run `action` on one snapshot of the database, unaffected by other writers. Raises StoreError."""
        return self._attempt(lambda: self._read_once(action))

    def _attempt(self, transact: Callable[[], T]) -> T:
        for _ in range(_ATTEMPTS):
            try:
                return transact()
            except (sqlite3.Error, OSError, UnusableFileError, UnicodeDecodeError) as error:
                self._survive(error)
        raise StoreError(f"{self._path} cannot be used, and every attempt to continue without it failed too.")

    def _read_once(self, action: Action[T]) -> T:
        self._wait_at_most(BUSY_TIMEOUT_S)
        return self._transact(action, "BEGIN")

    def _write_once(self, action: Action[T], is_durable: bool, patience_s: float | None) -> T:
        self._wait_at_most(BUSY_TIMEOUT_S if patience_s is None else patience_s)
        if is_durable:
            self._stay_in_place()
        if self._is_durable != is_durable:
            self._opened.connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
            self._is_durable = is_durable
        return self._transact(action, "BEGIN IMMEDIATE")

    def _wait_at_most(self, patience_s: float) -> None:
        if self._patience_s != patience_s:
            self._opened.connection.execute(f"PRAGMA busy_timeout = {1000 * patience_s:.0f}")
            self._patience_s = patience_s

    def _transact(self, action: Action[T], begin: str) -> T:
        connection = self._opened.connection
        connection.execute(begin)
        try:
            self._refuse_newer(connection)
            result = action(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _refuse_newer(self, connection: sqlite3.Connection) -> None:
        version = version_of(connection)
        if version != len(MIGRATIONS):
            raise UnusableFileError(f"another Slipstream has upgraded {self._path} to version {version}")

    def _stay_in_place(self) -> None:
        """Move to a new file if ours was deleted or replaced: writes to it would be lost on closing."""
        if self.is_saving and identity(self._path) != self._opened.identity:
            connection = self._opened.connection
            self._take(move_back(connection, self._path))
            connection.close()

    def _survive(self, error: Exception) -> None:
        """Replace the database that failed with another one. Raises StoreError if that would not help."""
        if isinstance(error, sqlite3.Error) and is_busy(error):
            raise StoreBusyError(
                f"{self._path} has been locked by another program for more than {self._patience_s:g} s. "
                "Close that program and try again."
            ) from error
        connection, was = self._opened.connection, self._opened.identity
        if was is not None and (_is_damaged(error) or _is_sign_of_damage(error, connection)):
            connection.close()
            self._take(open_database(self._path, damaged=was))
        elif was is not None and _is_unusable(error):
            self._take(continue_in_memory(connection, self._path, error))
            connection.close()
        else:
            raise StoreError(f"{self._path}: {error}. Nothing was changed.") from error

    def _take(self, opened: Opened) -> None:
        self._opened = opened
        self._is_durable = self._patience_s = None


def _is_damaged(error: Exception) -> bool:
    return isinstance(error, UnicodeDecodeError) or (isinstance(error, sqlite3.Error) and is_damage(error))


def _is_sign_of_damage(error: Exception, connection: sqlite3.Connection) -> bool:
    """Whether a failed constraint is due to damage: our writes never break one in a sound database."""
    if not isinstance(error, sqlite3.IntegrityError):
        return False
    try:
        return bool(what_is_wrong(connection))
    except sqlite3.Error:
        return False


def _is_unusable(error: Exception) -> bool:
    return not isinstance(error, sqlite3.Error) or is_unwritable(error)
