"""Paths as people type them, and the home folder."""

from __future__ import annotations

import os
from pathlib import Path

from models.errors import PathError


def expanded(typed: str) -> Path:
    """The path with `~` replaced by the home folder. Raises PathError."""
    if "\0" in typed:
        raise PathError(f"{typed!r} contains a zero byte, which no path may. Type it again.")
    try:
        return Path(typed).expanduser()
    except RuntimeError:
        raise PathError(
            f"{typed}: no user of that name has a home folder here. Use the path from /, or ./~ for a file."
        ) from None


def home_folder() -> Path:
    """The person's home folder. Raises PathError."""
    try:
        return Path.home()
    except RuntimeError:
        raise PathError(
            "There is no home folder: HOME is not set, and this account has none. "
            "Set HOME, or both SLIPSTREAM_HOME and HF_HOME, to a folder."
        ) from None


def in_utf8(path: Path) -> Path:
    """The same path. Raises PathError if its name is not UTF-8: it could be neither stored nor passed on."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise PathError(f"{shown}: the name of this folder is not UTF-8. Rename it, or use another one.") from None
    return path
