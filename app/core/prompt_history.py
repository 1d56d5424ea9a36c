"""What was typed before, kept from run to run. Knows no screen.

One JSON string a line, so that a message with many lines is one entry, and so that two chats at a time can
append. Nothing of the file is trusted, and a chat goes on without it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.system.files import opening_alone
from mlx_engine.files.atomic import replace_file

MOST_ENTRIES = 1000
MOST_FILE_BYTES = 2 << 20
MOST_ENTRY_CHARACTERS = 64_000
"""A longer one is kept for this run only; the chat it was sent in has it."""
_LOCK_S = 0.5


class PromptHistory:
    """The entries, oldest first. Never raises: a file that cannot be used is left alone."""

    def __init__(self, path: Path | None = None) -> None:
        """path: None keeps them for this run only."""
        self._path = path
        self.entries = _read(path)[-MOST_ENTRIES:] if path else []
        if path and (_size(path) > MOST_FILE_BYTES // 2 or len(self.entries) >= MOST_ENTRIES):
            self._shorten(path)

    def add(self, entry: str) -> None:
        """Keep an entry, unless it is empty or the newest already."""
        if not entry.strip() or self.entries[-1:] == [entry]:
            return
        self.entries = [*self.entries, entry][-MOST_ENTRIES:]
        if self._path and len(entry) <= MOST_ENTRY_CHARACTERS:
            with suppress(OSError), opening_alone(self._path, _LOCK_S):
                _append(self._path, entry)

    def _shorten(self, path: Path) -> None:
        """Leave the newest half, whoever wrote it."""
        with suppress(OSError), opening_alone(path, _LOCK_S):
            kept = _read(path)[-MOST_ENTRIES // 2 :]
            while kept and sum(map(len, kept)) > MOST_FILE_BYTES // 4:
                kept = kept[len(kept) // 2 + 1 :]
            replace_file(path, b"".join(map(_line, kept)))


def _append(path: Path, entry: str) -> None:
    descriptor = _open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end > MOST_FILE_BYTES:
            return
        file.seek(max(0, end - 1))
        # A line that was cut off by a crash must not swallow this one.
        torn = b"\n" if end and file.read(1) != b"\n" else b""
        file.write(torn + _line(entry))


def _read(path: Path) -> list[str]:
    try:
        with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
            data = file.read(2 * MOST_FILE_BYTES)
    except OSError:
        return []
    return list(_entries(data))


def _entries(data: bytes) -> Iterator[str]:
    for line in data.split(b"\n"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, str) and entry.strip():
            yield entry


def _open(path: Path, flags: int) -> int:
    """A plain file only: a pipe in its place would wait for somebody for ever. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a plain file")
    return descriptor


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _line(entry: str) -> bytes:
    return json.dumps(entry).encode("ascii") + b"\n"
