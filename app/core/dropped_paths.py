"""Files that were dropped on the window: terminals paste their paths absolute, quoted, escaped or as file URLs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAX_CHARACTERS = 20_000
"""A longer text is not looked at: it is no list of paths."""
_STARTS = ("/", "'/", '"/', "file:/", "'file:/", '"file:/')
_LOCAL_HOSTS = ("", "localhost")


def dropped_paths(pasted: str) -> list[str]:
    """The paths, if a text is nothing but absolute paths of files that exist; else none."""
    text = pasted.strip()
    if len(text) > MAX_CHARACTERS or not text.startswith(_STARTS):
        return []
    paths = [path for line in filter(None, map(str.strip, text.splitlines())) for path in _paths_in(line)]
    return paths if all(map(_can_be_mentioned, paths)) else []


def _paths_in(line: str) -> Iterator[str]:
    """The paths in one line; a line that has none is returned as it is."""
    try:
        words = [_without_scheme(word) for word in shlex.split(line)]
    except ValueError:  # a quote without its other half is part of a name
        words = []
    if words and all(map(_is_file, words)):
        yield from words
    else:
        yield _without_scheme(line)


def _without_scheme(word: str) -> str:
    if not word.startswith("file:"):
        return word
    try:
        url = urlsplit(word)
    except ValueError:
        return word
    return unquote(url.path) if url.netloc in _LOCAL_HOSTS else word


def _can_be_mentioned(path: str) -> bool:
    return path.isprintable() and '"' not in path and _is_file(path)


def _is_file(path: str) -> bool:
    try:
        return path.startswith("/") and Path(path).is_file()
    except (OSError, ValueError):
        return False
