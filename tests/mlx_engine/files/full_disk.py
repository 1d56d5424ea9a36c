"""A disk that becomes full in the middle of a write."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO

import pytest

from mlx_engine.files import chat_cache_file


def fill_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the disk takes so many writes, and half of the next one."""
    own, left = chat_cache_file._write, writes

    def full(file: BinaryIO, data: bytes | memoryview) -> None:
        nonlocal left
        if left == 0:
            own(file, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= 1
        own(file, data)

    monkeypatch.setattr(chat_cache_file, "_write", full)
