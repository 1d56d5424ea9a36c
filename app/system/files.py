"""The store's and the app's own files, as the file system sees them: private, whole, one process at a time."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_WAIT_S = 10.0
"""The longest that another process may take to open: it may be migrating or putting a damaged file aside."""
LOCK_POLL_S = 0.02

Identity = tuple[int, int]
"""Device and inode of a file."""


class UnusableFileError(Exception):
    """What is there is not for this program to write in.

    Apart from the tree of errors: the store makes a notice of it, and its message is a clause.
    """


def identity(path: Path) -> Identity | None:
    """Which file is at `path`; None if there is none to be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
    """A file of the person's own at `path`, empty if it was missing. Raises OSError or UnusableFileError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_folder(path.parent)
        return
    if not stat.S_ISREG(found.st_mode):
        raise UnusableFileError(f"{path} is not a file")
    if not os.access(path, os.W_OK):
        raise UnusableFileError(f"{path} cannot be written")
    if found.st_uid == os.geteuid() and found.st_mode & 0o077:
        path.chmod(0o600)


def sync_folder(folder: Path) -> None:
    """The name of a new file survives a power cut only if its folder is synced too. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
