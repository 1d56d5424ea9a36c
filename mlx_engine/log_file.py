"""Logs that stay small: a full one is put aside when it is opened next, and the oldest is dropped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

MAX_LOG_BYTES = 5 << 20
KEPT = 3
"""Full ones, beside the one that is written."""


def open_log(path: Path) -> BinaryIO:
    """Open for appending; only the person can read it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_file() and path.stat().st_size >= MAX_LOG_BYTES:
        for number in range(KEPT, 0, -1):
            older = _aside(path, number - 1)
            if older.exists():
                older.replace(_aside(path, number))
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path
