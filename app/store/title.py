"""Titles for chats that nobody has named."""

from __future__ import annotations

TITLE_CHARACTERS = 60


def automatic_title(text: str) -> str:
    """The first line with text, shortened at a space; empty if there is none."""
    start = text.lstrip()[: 8 * TITLE_CHARACTERS]
    line = " ".join(start.splitlines()[0].split()) if start else ""
    if len(line) <= TITLE_CHARACTERS:
        return line
    at_word = line[:TITLE_CHARACTERS].rpartition(" ")[0]
    return f"{at_word if len(at_word) > TITLE_CHARACTERS // 2 else line[: TITLE_CHARACTERS - 1]}…"
