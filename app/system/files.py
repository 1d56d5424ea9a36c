"""Operations on the store's and the app's own files: private, whole, one process at a time."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mlx_engine.files.flush import flush_to_disk

LOCK_WAIT_S = 10.0
"""How long to wait for another process, which may be migrating a database or moving a damaged one aside."""
LOCK_POLL_S = 0.02

Identity = tuple[int, int]
"""Device and inode of a file."""


class UnusableFileError(Exception):
    """What is there is not for this program to write in.

    Apart from the tree of errors: the store makes a notice of it, and its message is a clause.
    """


def identity(path: Path) -> Identity | None:
    """The identity of the file at `path`; None if there is none or it cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def opening_alone(path: Path, wait_s: float | None = None) -> Iterator[None]:
    """Only one process at a time creates, changes or moves the file at `path`.

    wait_s: how long another process may take; None: `LOCK_WAIT_S`.
    Raises BlockingIOError if it takes longer, and OSError.
    """
    lock = FileLock(f"{path}.lock", mode=0o600)
    try:
        # A negative timeout would wait forever.
        lock.acquire(timeout=max(0.0, LOCK_WAIT_S if wait_s is None else wait_s), poll_interval=LOCK_POLL_S)
    except Timeout:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), lock.lock_file) from None
    except NotImplementedError:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), lock.lock_file) from None
    try:
        yield
    finally:
        lock.release()


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
        flush_to_disk(handle)
    finally:
        os.close(handle)
