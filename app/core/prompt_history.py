"""The prompts of earlier runs and this one, kept in a file.

One JSON string per line, so that a message of many lines is one entry and two chats at a time can append. The file
is not trusted, and a chat works without it.
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

MAX_ENTRIES = 1000
MAX_FILE_BYTES = 2 << 20
MAX_ENTRY_CHARACTERS = 64_000
"""A longer one is kept for this run only; it is stored with its chat."""
_LOCK_S = 0.5


class PromptHistory:
    """The entries, oldest first. Never raises; a file that cannot be used is ignored."""

    def __init__(self, path: Path | None = None) -> None:
        """path: None keeps them for this run only."""
        self._path = path
        self.entries = _read(path)[-MAX_ENTRIES:] if path else []
        if path and (_size(path) > MAX_FILE_BYTES // 2 or len(self.entries) >= MAX_ENTRIES):
            self._shorten(path)

    def add(self, entry: str, *, is_draft: bool = False) -> None:
        """Add an entry, unless it is empty or equal to the newest one.

        is_draft: it was not sent and is stored nowhere else, so it may be as long as the file.
        """
        if not entry.strip() or self.entries[-1:] == [entry]:
            return
        self.entries = [*self.entries, entry][-MAX_ENTRIES:]
        is_short = len(entry) <= MAX_ENTRY_CHARACTERS
        if self._path and (is_short or (is_draft and len(_line(entry)) <= MAX_FILE_BYTES)):
            with suppress(OSError), opening_alone(self._path, _LOCK_S):
                _append(self._path, entry)

    def _shorten(self, path: Path) -> None:
        """Drop the older half of the file, including entries of other chats."""
        with suppress(OSError), opening_alone(path, _LOCK_S):
            kept = _read(path)[-MAX_ENTRIES // 2 :]
            while kept and sum(map(len, kept)) > MAX_FILE_BYTES // 4:
                kept = kept[len(kept) // 2 + 1 :]
            replace_file(path, b"".join(map(_line, kept)))


def _append(path: Path, entry: str) -> None:
    descriptor = _open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end > MAX_FILE_BYTES:
            return
        file.seek(max(0, end - 1))
        # End a line that a crash cut off.
        newline = b"\n" if end and file.read(1) != b"\n" else b""
        file.write(newline + _line(entry))


def _read(path: Path) -> list[str]:
    try:
        with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
            data = file.read(2 * MAX_FILE_BYTES)
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
    """Open a regular file. Raises OSError for anything else; a pipe would block forever."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return descriptor


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _line(entry: str) -> bytes:
    return json.dumps(entry).encode("ascii") + b"\n"
