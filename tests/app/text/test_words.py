"""The word at a position."""

from __future__ import annotations

import pytest

from app.text.words import word_at


@pytest.mark.parametrize(
    ("position", "word"),
    [(0, "Don't"), (4, "Don't"), (5, " "), (6, "stop-gap"), (14, ","), (16, "naïve"), (21, "()"), (99, "")],
)
def test_the_word_at_a_position(position: int, word: str) -> None:
    line = "Don't stop-gap, naïve()"
    start, end = word_at(line, position)
    assert line[start:end] == word
