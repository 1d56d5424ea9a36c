"""The folder of the chat cache: one folder for each chat, and in it a head and its parts for each model.

`folder/<chat>/<model>.safetensors` and `folder/<chat>/<model>-<part>.safetensors`. The engine writes files; the
app lists and deletes them. Files are ordered by their time of change, which only ever grows within the folder, so
that a clock that jumps changes nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlx_engine.files.chat_cache_file import TEMPORARY

SUFFIX = ".safetensors"
SHARE_OF_FREE_DISK = 10
"""The bound where none is set: one part in this many of what is free without the cache."""

LATEST_STAMP_NS = 2**63 - 1
"""The system takes no later time."""


@dataclass(frozen=True, slots=True)
class CachedChat:
    """What the cache has of one chat."""

    chat_id: int
    size_bytes: int
    stamp_ns: int
    """Of its newest file."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size_bytes: int
    stamp_ns: int

    @property
    def head(self) -> Path:
        """The head that it belongs to, or is."""
        return self.path.with_name(f"{self.path.stem.partition('-')[0]}{SUFFIX}")


def part_file(head: Path, name: str) -> Path:
    """Where a part of the chat at `head` is."""
    return head.with_name(f"{head.stem}-{name}{SUFFIX}")


def part_files(head: Path) -> list[Path]:
    """Those that are there, whether the head names them or not."""
    return [path for path in _entries(head.parent) if path.match(f"{head.stem}-*{SUFFIX}")]


class ChatCacheFolder:
    """The folder, which may not exist. Nothing here raises OSError but `make`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, chat_id: int) -> Path:
        """The folder of a chat, created if it is missing. Raises OSError."""
        folder = self._of(chat_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def file(self, chat_id: int, model: str) -> Path:
        """Where the head of a chat is for a model."""
        return self._of(chat_id) / f"{model}{SUFFIX}"

    def _of(self, chat_id: int) -> Path:
        return self.folder / str(int(chat_id))

    def chats(self) -> list[CachedChat]:
        """The chats that take space, the latest first."""
        found: dict[int, CachedChat] = {}
        for file in self._files():
            chat_id = int(file.path.parent.name)
            before = found.get(chat_id, CachedChat(chat_id, 0, 0))
            size_bytes, stamp_ns = before.size_bytes + file.size_bytes, max(before.stamp_ns, file.stamp_ns)
            found[chat_id] = CachedChat(chat_id, size_bytes, stamp_ns)
        return sorted(found.values(), key=lambda chat: chat.stamp_ns, reverse=True)

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self._files())

    def bound_bytes(self, limit_bytes: int | None) -> int:
        """The most bytes that the files may take. limit_bytes: as set; None: by what is free."""
        if limit_bytes is not None:
            return limit_bytes
        nearest = next(path for path in (self.folder, *self.folder.parents) if path.is_dir())
        try:
            return (shutil.disk_usage(nearest).free + self.size_bytes) // SHARE_OF_FREE_DISK
        except OSError:
            return 0

    def make_room(self, size_bytes: int, limit_bytes: int | None, replaced: Path) -> bool:
        """Delete the oldest chats until one of this size fits in place of `replaced`. Returns whether it does.

        replaced: its head. Of a chat that is deleted all files go.
        """
        room_bytes = self.bound_bytes(limit_bytes) - size_bytes
        if room_bytes < 0:
            return False
        chats: dict[Path, list[_File]] = {}
        for file in self._files():
            chats.setdefault(file.head, []).append(file)
        chats.pop(replaced, None)
        oldest_first = sorted(chats, key=lambda head: max(file.stamp_ns for file in chats[head]))
        taken_bytes = sum(file.size_bytes for files in chats.values() for file in files)
        while oldest_first and taken_bytes > room_bytes:
            head = oldest_first.pop(0)
            self.drop(head)
            taken_bytes -= sum(file.size_bytes for file in chats[head])
        return True

    def drop(self, head: Path) -> None:
        """Delete what there is of a chat for one model."""
        for path in (head, *part_files(head)):
            _delete(path)

    def next_stamp_ns(self) -> int:
        """A time of change later than those of all files."""
        latest_ns = max((file.stamp_ns for file in self._files()), default=0)
        return min(max(time.time_ns(), latest_ns + 1), LATEST_STAMP_NS)

    def touch(self, path: Path) -> None:
        """The file was used."""
        stamp_ns = self.next_stamp_ns()
        with suppress(OSError):
            os.utime(path, ns=(stamp_ns, stamp_ns), follow_symlinks=False)

    def delete(self, chat_id: int) -> None:
        """Delete what there is of a chat. A write that is under way comes to nothing."""
        shutil.rmtree(self._of(chat_id), ignore_errors=True)

    def clear(self) -> int:
        """Delete everything. Returns the bytes that were in use."""
        before_bytes = self.size_bytes
        for folder in self._chat_folders():
            shutil.rmtree(folder, ignore_errors=True)
        return before_bytes - self.size_bytes

    def sweep(self) -> None:
        """Delete what writers have left that were killed."""
        for folder in self._chat_folders():
            for path in _entries(folder):
                if path.name.endswith(TEMPORARY) and not _is_being_written(path):
                    _delete(path)

    def _files(self) -> Iterator[_File]:
        for folder in self._chat_folders():
            for path in _entries(folder):
                with suppress(OSError):
                    facts = path.lstat()
                    if path.suffix == SUFFIX and stat.S_ISREG(facts.st_mode):
                        yield _File(path, facts.st_size, facts.st_mtime_ns)

    def _chat_folders(self) -> list[Path]:
        return [
            path
            for path in _entries(self.folder)
            if path.name.isascii() and path.name.isdecimal() and path.is_dir() and not path.is_symlink()
        ]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _is_being_written(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
