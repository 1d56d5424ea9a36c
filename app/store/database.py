"""The database while the program runs: transactions, how durable each is, and how to continue when one fails.

If the disk fails, continues in memory, and returns to the file as soon as that can be written; if the file is
damaged, continues with what could be rescued. Either happens only after a failed attempt, which is then repeated.
The caller gets a result or a StoreError.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from app.store.connection import BUSY_TIMEOUT_S, is_busy, is_damage, is_unwritable, what_is_wrong
from app.store.errors import StoreBusyError, StoreError, StoreReplacedError
from app.store.membership import Membership, ReplacedDatabaseError
from app.store.opening import (
    UNSAVED,
    Opened,
    continue_in_memory,
    move_back,
    open_again,
    open_database,
    open_in_memory,
)
from app.store.outage import unsaved_chats, write_unsaved
from app.store.schema import MIGRATIONS, version_of
from app.system.files import UnusableFileError, identity

T = TypeVar("T")
Action = Callable[[sqlite3.Connection], T]

FLUSH_TIMEOUT_S = 0.1
"""How long a write waits for another program if the next write can repeat it: the screen waits with it."""
RETURN_INTERVAL_S = 2.0
"""How often it is tried whether the file can be written again."""
SAVED_AGAIN = "Chats are saved again, with everything written meanwhile."
_ATTEMPTS = 3
"""The file as it is, the rescued file, memory."""
_FAILURES = (sqlite3.Error, OSError, UnusableFileError, UnicodeDecodeError, ReplacedDatabaseError)


class Database:
    """One process's access to the database, for the thread that opened it."""

    def __init__(
        self,
        path: Path | None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """path: None for one in memory that nobody keeps. now: what others compare with. clock: for waiting."""
        self._path = path.absolute() if path else Path(":memory:")
        self._has_path = path is not None
        self._clock = clock
        self._tried_s = clock()
        self._membership = Membership(now)
        self.epoch = 0
        """Raised when the file has been replaced: ids from before mean nothing in it."""
        self._is_durable: bool | None = None
        self._patience_s: float | None = None
        self._opened: Opened
        self._take(open_database(self._path) if path else open_in_memory())

    @property
    def notice(self) -> str | None:
        """A problem that the person should know about, as a sentence; None if there is none."""
        return self._opened.notice

    @property
    def is_saving(self) -> bool:
        """Whether there is a file; otherwise everything is lost when the process ends."""
        return self._opened.identity is not None

    @property
    def is_cut_off(self) -> bool:
        """Whether there should be a file, but it cannot be written."""
        return self._has_path and not self.is_saving

    @property
    def token(self) -> str:
        """By which other processes know this one."""
        return self._membership.token

    @property
    def unsaved_chats(self) -> list[int]:
        """The chats that have changed since the file could no longer be written."""
        return unsaved_chats(self._opened.connection) if self.is_cut_off else []

    def close(self) -> None:
        """Close, after a last attempt to write what is unsaved; SQLite then merges its journal into the file."""
        self.save_again()
        connection = self._opened.connection
        if self.is_saving:
            with suppress(sqlite3.Error):
                self._membership.leave(connection)
        connection.close()

    def save_again(self) -> bool:
        """Return to the file if it can be written again. Returns whether changes are saved."""
        if not self.is_cut_off:
            return self.is_saving
        self._tried_s = self._clock()
        memory = self._opened
        try:
            self._return_from(memory)
        except ReplacedDatabaseError:
            reason = f"{self._path} is another file than before"
            self._opened = Opened(
                memory.connection, f"Chats are no longer saved: {reason}. {UNSAVED}", None, memory.name
            )
        except (sqlite3.Error, OSError, UnusableFileError, UnicodeDecodeError):
            pass
        return self.is_saving

    def save_again_if_due(self) -> None:
        """As `save_again`, but not again within `RETURN_INTERVAL_S`."""
        if self.is_cut_off and self._clock() - self._tried_s >= RETURN_INTERVAL_S:
            self.save_again()

    def _return_from(self, memory: Opened) -> None:
        is_missing = identity(self._path) is None
        opened = open_again(self._path, memory.connection)
        try:
            if is_missing:
                self._membership.rejoin()
            else:
                self._write_unsaved(memory, opened.connection)
        except BaseException:
            opened.connection.close()
            raise
        self._take(Opened(opened.connection, opened.notice or SAVED_AGAIN, opened.identity))
        memory.connection.close()

    def _write_unsaved(self, memory: Opened, file: sqlite3.Connection) -> None:
        file.execute("BEGIN IMMEDIATE")
        try:
            if self._membership.is_new and memory.name not in (
                None,
                file.execute("SELECT name FROM store").fetchone()[0],
            ):
                raise ReplacedDatabaseError
            self._membership.check_in(file)
            write_unsaved(memory.connection, file)
            file.execute("COMMIT")
        except BaseException:
            if file.in_transaction:
                file.execute("ROLLBACK")
            raise
        self._membership.committed()

    def write(self, action: Action[T], is_durable: bool = True, patience_s: float | None = None) -> T:
        """Run `action` in a transaction that is written when this returns.

        If `is_durable`, it survives a power cut; otherwise only a killed process. Raises StoreError if nothing was
        written, and StoreBusyError after `patience_s` (None: `BUSY_TIMEOUT_S`).
        """
        self.save_again_if_due()
        return self._attempt(lambda: self._write_once(action, is_durable, patience_s))

    def read(self, action: Action[T]) -> T:
        """Run `action` on one snapshot of the database, unaffected by other writers. Raises StoreError."""
        return self._attempt(lambda: self._read_once(action))

    def _attempt(self, transact: Callable[[], T]) -> T:
        for _ in range(_ATTEMPTS):
            try:
                return transact()
            except _FAILURES as error:
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
        if not self.is_saving:
            return self._transact(action, "BEGIN IMMEDIATE")

        def check_in_and_act(connection: sqlite3.Connection) -> T:
            self._membership.check_in(connection)
            return action(connection)

        result = self._transact(check_in_and_act, "BEGIN IMMEDIATE")
        self._membership.committed()
        return result

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
        if isinstance(error, ReplacedDatabaseError):
            self.epoch += 1
            self._membership.rejoin()
            raise StoreReplacedError(
                f"{self._path} is another file than before. Nothing was changed in it."
            ) from error
        connection, was = self._opened.connection, self._opened.identity
        if was is not None and (_is_damaged(error) or _is_sign_of_damage(error, connection)):
            connection.close()
            self._membership.rejoin()
            self._take(open_database(self._path, damaged=was))
        elif was is not None and _is_unusable(error):
            self._take(continue_in_memory(connection, self._path, error))
            connection.close()
        else:
            raise StoreError(f"{self._path}: {error}. Nothing was changed.") from error

    def _take(self, opened: Opened) -> None:
        self._opened = opened
        self._tried_s = self._clock()
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
