"""Operations on the store's and the app's own files: private, whole, one process at a time."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_WAIT_S = 10.0
"""How long to wait for another process, which may be migrating a database or moving a damaged one aside."""
LOCK_POLL_S = 0.02

Identity = tuple[int, int]
"""Device and inode of a file."""


class UnusableFileError(Exception):
    """What is there is not for this program to write in; the message is a clause."""


def identity(path: Path) -> Identity | None:
    """The identity of the file at `path`; None if there is none or it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def opening_alone(path: Path, wait_s: float | None = None) -> Iterator[None]:
    """No two processes create, change or put aside the same file at once. Raises OSError.

    wait_s: how long another process may take; None: `LOCK_WAIT_S`.
    """
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up_s = time.monotonic() + (LOCK_WAIT_S if wait_s is None else wait_s)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(lock)


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` in place of a file, whole or not at all, for the person's eyes only. Raises OSError."""
    unfinished = Path(f"{path}.{os.getpid()}.part")
    try:
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise


def make_private_file(path: Path) -> None:
    """Make `path` a file that only its owner can read, empty if new. Raises OSError or UnusableFileError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_folder(path.parent)
        return
    if not stat.S_ISREG(status.st_mode):
        raise UnusableFileError(f"{path} is not a regular file")
    if not os.access(path, os.W_OK):
        raise UnusableFileError(f"{path} cannot be written")
    if status.st_uid == os.geteuid() and status.st_mode & 0o077:
        path.chmod(0o600)


def sync_folder(folder: Path) -> None:
    """Write a folder to disk, so that the names of new files survive a power cut. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
