"""A title for a chat that a person has given none."""

from __future__ import annotations

TITLE_CHARACTERS = 60


def automatic_title(text: str) -> str:
    """The first line that says something, on one line, cut at a word; empty if there is none."""
    start = text.lstrip()[: 8 * TITLE_CHARACTERS]
    words = " ".join(start.splitlines()[0].split()) if start else ""
    if len(words) <= TITLE_CHARACTERS:
        return words
    at_word = words[:TITLE_CHARACTERS].rpartition(" ")[0]
    return f"{at_word if len(at_word) > TITLE_CHARACTERS // 2 else words[: TITLE_CHARACTERS - 1]}…"
