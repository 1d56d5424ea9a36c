"""Where a word begins and ends, for a double click."""

from __future__ import annotations

import re

_RUNS = re.compile(r"\w+(?:['’-]\w+)*|\s+|[^\w\s]+")
"""A word with its apostrophes and hyphens, blanks, or punctuation."""


def word_at(line: str, position: int) -> tuple[int, int]:
    """Start and end of the word, or of the blanks or punctuation, at a position; empty beyond the end."""
    for run in _RUNS.finditer(line):
        if run.start() <= position < run.end():
            return run.span()
    return len(line), len(line)
