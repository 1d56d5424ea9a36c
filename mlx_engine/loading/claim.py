"""Two large models in memory at once: whoever loads the second is told of the first."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

LARGE_BYTES = 1 << 30
"""Smaller models are in nobody's way."""
LONGEST_NAME_BYTES = 80


class Claim:
    """Says that this process has a large model in memory, as long as it lives or is referred to.

    The system gives a lock back with the process that held it, however that ended.
    """

    def __init__(self, folder: Path | None, name: str, size_bytes: int) -> None:
        """folder: where all processes of this person look; None claims nothing. Never raises OSError."""
        self.notice: str | None = None
        """What the person should know."""
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
                f"Another Slipstream has {other} in memory, beside the {size_bytes / 1e9:.1f} GB of this one. "
                "If the machine becomes slow, close one of them."
            )
            return
        self._lock = lock
        os.truncate(lock, 0)
        os.write(lock, name.encode("utf-8", "replace")[:LONGEST_NAME_BYTES])
