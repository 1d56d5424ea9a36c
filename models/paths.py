"""Paths as people type them."""

from __future__ import annotations

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
