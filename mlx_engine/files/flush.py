"""Waits until written bytes are on the disk."""

from __future__ import annotations

import fcntl
import os

FULL_FLUSH: int | None = getattr(fcntl, "F_FULLFSYNC", None)
"""Only macOS has it. There fsync returns when the drive has the bytes, maybe only in its cache: see fsync(2)."""


def flush_to_disk(descriptor: int) -> None:
    """Return when a power cut no longer loses what was written to this file or folder. Raises OSError."""
    if FULL_FLUSH is not None:
        try:
            fcntl.fcntl(descriptor, FULL_FLUSH)
            return
        except OSError:
            pass  # some file systems, mostly of networks, cannot do it
    os.fsync(descriptor)
