"""The database while the program runs: transactions, how safe each has to be, and what follows when one fails.

A failing disk is answered by going on in memory, a damaged file by going on with what could be rescued; both
only after the attempt, which is then made again. Whoever asked sees a result, or a StoreError.
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
"""As long as what can be written with the next words waits for another program: the screen waits with it."""
_ATTEMPTS = 3
"""The file as it is, what could be rescued of it, memory."""


class Database:
    """One process's hold on the database, for the thread that opened it."""

    def __init__(self, path: Path | None) -> None:
        """path: None for one in memory that nobody keeps."""
        self._path = path.absolute() if path else Path(":memory:")
        self._is_durable: bool | None = None
        self._patience_s: float | None = None
        self._take(open_database(self._path) if path else open_in_memory())

    @property
    def notice(self) -> str | None:
        """What a person has to know about the store, in a sentence; None while all is well."""
        return self._opened.notice

    @property
    def is_saving(self) -> bool:
        """Whether there is a file; False: everything ends with the process."""
        return self._opened.identity is not None

    def close(self) -> None:
        """Leave one file without a journal behind."""
        self._opened.connection.close()

    def write(self, action: Action[T], is_durable: bool = True, patience_s: float | None = None) -> T:
        """Do `action` in a transaction. When this returns, it is written, `is_durable` even through a power cut.

        Not durable means: a power cut may take it, a killed process does not. Raises StoreError, nothing written;
        StoreBusyError after `patience_s`, None: `BUSY_TIMEOUT_S`.
        """
        return self._attempt(lambda: self._write_once(action, is_durable, patience_s))

    def read(self, action: Action[T]) -> T:
        """Do `action` on one state of the database, whatever others write meanwhile. Raises StoreError."""
        return self._attempt(lambda: self._read_once(action))

    def _attempt(self, transact: Callable[[], T]) -> T:
        for _ in range(_ATTEMPTS):
            try:
                return transact()
            except (sqlite3.Error, OSError, UnusableFileError, UnicodeDecodeError) as error:
                self._survive(error)
        raise StoreError(f"{self._path} cannot be used: every attempt to go on without it failed too.")

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
            raise UnusableFileError(f"another Slipstream has changed {self._path} to version {version}")

    def _stay_in_place(self) -> None:
        """What is written to a file that was deleted or replaced is gone when it is closed."""
        if self.is_saving and identity(self._path) != self._opened.identity:
            connection = self._opened.connection
            self._take(move_back(connection, self._path))
            connection.close()

    def _survive(self, error: Exception) -> None:
        """Put another database in place of the one that failed. Raises StoreError if that would not help."""
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
    """What is written here breaks no constraint of a database that is whole."""
    if not isinstance(error, sqlite3.IntegrityError):
        return False
    try:
        return bool(what_is_wrong(connection))
    except sqlite3.Error:
        return False


def _is_unusable(error: Exception) -> bool:
    return not isinstance(error, sqlite3.Error) or is_unwritable(error)
