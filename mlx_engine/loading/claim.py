"""Warns a process that loads a large model while another process of the same person has one in memory."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

LARGE_BYTES = 1 << 30
"""Smaller models are ignored."""
LONGEST_NAME_BYTES = 80


class Claim:
    """A lock that this process keeps while it has a large model in memory, or until the object is deleted.

    The system releases the lock when the process ends, however that happens.
    """

    def __init__(self, folder: Path | None, name: str, size_bytes: int) -> None:
        """folder: the same for all processes of a person; None claims nothing. Never raises OSError."""
        self.notice: str | None = None
        """The warning, if there is one."""
        self._lock: int | None = None
        if folder is not None and size_bytes >= LARGE_BYTES:
            with suppress(OSError):
                self._claim(folder, name, size_bytes)

    def __del__(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def _claim(self, folder: Path, name: str, size_bytes: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "in-memory.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.read(lock, LONGEST_NAME_BYTES).decode("utf-8", "replace") or "a model"
            os.close(lock)
            self.notice = (
                f"Another Slipstream has {other} in memory, and this model takes another "
                f"{size_bytes / 1e9:.1f} GB. If the machine becomes slow, close one of them."
            )
            return
        self._lock = lock
        os.truncate(lock, 0)
        os.write(lock, name.encode("utf-8", "replace")[:LONGEST_NAME_BYTES])
