"""The processes that use a database: each has a row in it, with a count of its writes.

The row shows others whether the process that runs a reply is still there. And by its count the process itself
recognises the database: in another file, or in an older copy of this one, its ids may belong to other messages.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable

from app.system.processes import start_of, this_machine

STALE_S = 60.0
"""A reply whose process has not written for so long counts as interrupted: it hangs, or ended elsewhere."""
FORGOTTEN_S = 30 * 24 * 3600.0
"""Rows of another machine's processes are deleted after this time."""


class ReplacedDatabaseError(Exception):
    """The database is not the one that this process last wrote to. Apart from the tree of errors, like damage."""


class Membership:
    """This process's row. It is written with every transaction that changes something."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.token = secrets.token_hex(8)
        self._now = now
        self._is_new = True
        self._written = 0
        self._attempted = 0

    @property
    def is_new(self) -> bool:
        """Whether this process has not written to the database yet."""
        return self._is_new

    def rejoin(self) -> None:
        """The next transaction may be in another database."""
        self._is_new = True

    def check_in(self, connection: sqlite3.Connection) -> None:
        """To be called in every transaction that writes. Raises ReplacedDatabaseError."""
        if self._is_new:
            connection.execute(
                "INSERT OR REPLACE INTO process (token, machine, pid, started) VALUES (?, ?, ?, ?)",
                (self.token, this_machine(), os.getpid(), start_of(os.getpid()) or ""),
            )
        else:
            row = connection.execute("SELECT writes FROM process WHERE token = ?", (self.token,)).fetchone()
            # A commit that failed may have been written.
            if row is None or row[0] not in (self._written, self._attempted):
                raise ReplacedDatabaseError
        self._attempted = self._written + 1
        connection.execute(
            "UPDATE process SET writes = ?, beat_s = ? WHERE token = ?", (self._attempted, self._now(), self.token)
        )

    def committed(self) -> None:
        """The transaction of the last `check_in` was committed."""
        self._is_new, self._written = False, self._attempted

    def leave(self, connection: sqlite3.Connection) -> None:
        """Delete the row."""
        connection.execute("DELETE FROM process WHERE token = ?", (self.token,))


def is_running(connection: sqlite3.Connection, token: str | None, now_s: float) -> bool:
    """Whether the process with this row is there and writes."""
    row = connection.execute(
        "SELECT machine, pid, started, beat_s FROM process WHERE token = ?", (token,)
    ).fetchone()
    return row is not None and not _has_ended(*row[:3]) and abs(now_s - row[3]) <= STALE_S


def forget_ended(connection: sqlite3.Connection, now_s: float) -> None:
    """Delete the rows of processes that have ended."""
    for id, machine, pid, started, beat_s in connection.execute(
        "SELECT id, machine, pid, started, beat_s FROM process"
    ).fetchall():
        if _has_ended(machine, pid, started) or (machine != this_machine() and abs(now_s - beat_s) > FORGOTTEN_S):
            connection.execute("DELETE FROM process WHERE id = ?", (id,))


def _has_ended(machine: object, pid: object, started: object) -> bool:
    """False also where this cannot be known: on another machine that shares the file."""
    return machine == this_machine() and (not isinstance(pid, int) or start_of(pid) != started)
