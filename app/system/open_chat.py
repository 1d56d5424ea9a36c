"""Tells two running chats that they have the same stored chat open."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class OpenChatMark:
    """Marks a stored chat as open in this process. The mark ends with the process, however that ends.

    A mark is a lock on one byte of an empty file: the byte's offset is the chat's id.
    """

    def __init__(self, path: Path | None = None) -> None:
        """path: the file; None: nothing is marked."""
        self._path = path
        self._file: int | None = None
        self._marked_id: int | None = None

    def move(self, chat_id: int | None) -> bool:
        """Mark this chat instead of the last one. False if another process has it open."""
        if chat_id == self._marked_id:
            return True
        try:
            file = self._opened()
            if file is None:
                return True
            if self._marked_id is not None:
                fcntl.lockf(file, fcntl.LOCK_UN, 1, self._marked_id)
                self._marked_id = None
            if chat_id is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, chat_id)
                self._marked_id = chat_id
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True  # a file system without locks
        return True

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = self._marked_id = None

    def _opened(self) -> int | None:
        if self._file is None and self._path is not None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._file
