"""Tells two running chats that they have the same stored chat open."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

VISITORS_AT = 1 << 48
"""No chat has an id as high as this."""


class OpenChatMark:
    """Marks a stored chat as open in this process. The mark ends with the process, however that ends.

    A mark is a lock on one byte of an empty file: the byte's offset is the chat's id. A process that finds a chat
    marked shares a lock on another byte, by which the one that marked it learns of it.
    """

    def __init__(self, path: Path | None = None) -> None:
        """path: the file; None: nothing is marked."""
        self._path = path
        self._file: int | None = None
        self._marked_id: int | None = None
        self._visited_id: int | None = None
        """The chat that another process has marked."""

    def move(self, chat_id: int | None) -> bool:
        """Mark this chat instead of the last one. False if another process has it open."""
        if chat_id == self._marked_id and self._visited_id is None:
            return True
        try:
            file = self._opened()
            if file is None:
                return True
            if self._marked_id is not None:
                fcntl.lockf(file, fcntl.LOCK_UN, 1, self._marked_id)
                self._marked_id = None
            if self._visited_id not in (None, chat_id):
                self._end_visit(file)
            if chat_id is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, chat_id)
                self._marked_id = chat_id
                self._end_visit(file)
        except (BlockingIOError, PermissionError):
            self._visit(chat_id)
            return False
        except OSError:
            return True  # a file system without locks
        return True

    @property
    def has_visitor(self) -> bool:
        """Whether another process has the chat open that this one has marked."""
        if self._marked_id is None or self._file is None:
            return False
        byte = VISITORS_AT + self._marked_id
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return False
        return False

    def _visit(self, chat_id: int | None) -> None:
        if self._file is None or chat_id is None or chat_id == self._visited_id:
            return
        with suppress(OSError):  # for a moment, the other process may be looking; the next `move` tries again
            fcntl.lockf(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, VISITORS_AT + chat_id)
            self._visited_id = chat_id

    def _end_visit(self, file: int) -> None:
        if self._visited_id is not None:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, VISITORS_AT + self._visited_id)
            self._visited_id = None

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = self._marked_id = self._visited_id = None

    def _opened(self) -> int | None:
        if self._file is None and self._path is not None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._file
