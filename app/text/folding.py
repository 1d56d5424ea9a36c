"""Compares words as people do: in upper or lower case, in either Unicode form, with or without accents."""

from __future__ import annotations

import re
from unicodedata import normalize

_ACCENTS = re.compile("[\u0300-\u036f]+")
"""The combining accents of Latin, Greek and Cyrillic. Marks of other scripts are letters of their own."""
_CHUNK_CHARACTERS = 4096


def folded(text: str) -> str:
    """The text in the form that is compared."""
    lower = text.lower()
    if lower.isascii():
        return lower
    # Python lowers sigma to one of two letters, depending on its position in the word.
    return _ACCENTS.sub("", normalize("NFD", lower)).replace("ς", "σ")


def unfolded_position(text: str, position: int) -> int:
    """Where in `text` a position of its folded form is."""
    if text.isascii():
        return position
    start = 0
    while start < len(text):
        length = len(folded(text[start : start + _CHUNK_CHARACTERS]))
        if position < length:
            break
        position -= length
        start += _CHUNK_CHARACTERS
    for index in range(start, min(len(text), start + _CHUNK_CHARACTERS)):
        position -= len(folded(text[index]))
        if position < 0:
            return index
    return len(text)
