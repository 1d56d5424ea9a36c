"""Paths as people type them."""

from __future__ import annotations

from pathlib import Path

from models.errors import PathError


def expanded(typed: str) -> Path:
    """The path that is meant, with `~` for a home folder. Raises PathError where there is no such place."""
    if "\0" in typed:
        raise PathError(f"{typed!r} has a zero byte in it, and no path may. Type it again.")
    try:
        return Path(typed).expanduser()
    except RuntimeError:
        raise PathError(
            f"{typed}: nobody of that name has a home folder here. Write the path from / on, or ./~ for a file."
        ) from None
