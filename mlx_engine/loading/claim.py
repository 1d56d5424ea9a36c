"""Two large models in memory at once: the process that loads the second one is told about the first."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mlx_engine.files.atomic import replace_file
from mlx_engine.files.regular_file import read_regular

LARGE_BYTES = 1 << 30
"""Smaller models do not matter."""
LONGEST_NAME_BYTES = 80


class Claim:
    """Marks that this process has a large model in memory, for as long as the object exists.

    The operating system releases the lock when the process ends, however it ends.
    """

    def __init__(self, folder: Path | None, name: str, size_bytes: int) -> None:
        """folder: shared by all processes of this account; None claims nothing. Never raises OSError."""
        self.notice: str | None = None
        """What to tell the person, if another process has a large model."""
        self._lock: FileLock | None = None
        if folder is not None and size_bytes >= LARGE_BYTES:
            with suppress(OSError, NotImplementedError):  # the latter where a file system has no locks
                self._claim(folder, name, size_bytes)

    def __del__(self) -> None:
        if self._lock is not None:
            self._lock.release(force=True)

    def _claim(self, folder: Path, name: str, size_bytes: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not bound to this thread: the object may be dropped on another one.
        lock = FileLock(folder / "in-memory.lock", mode=0o600, thread_local=False)
        # Beside the lock: some versions of filelock empty the file they lock.
        holder = folder / "in-memory.name"
        try:
            lock.acquire(blocking=False)
        except Timeout:
            self.notice = (
                f"Another Slipstream has {_read_name(holder)} in memory, and this model takes another "
                f"{size_bytes / 1e9:.1f} GB. If the machine becomes slow, close one of them."
            )
            return
        self._lock = lock
        replace_file(holder, name.encode("utf-8", "replace")[:LONGEST_NAME_BYTES], is_synced=False)


def _read_name(holder: Path) -> str:
    try:
        return read_regular(holder, LONGEST_NAME_BYTES).decode("utf-8", "replace") or "a model"
    except OSError:
        return "a model"
