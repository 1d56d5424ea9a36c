"""No text that is drawn can steer a terminal."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.text.sanitise import sanitise, sanitise_cells, sanitise_line

EVERY_CHARACTER = "".join(map(chr, range(sys.maxunicode + 1)))
ANY_TEXT = st.text(st.characters(codec=None), max_size=200)


def is_harmless(character: str) -> bool:
    if character in "\n\t":
        return True
    return unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") and unicodedata.bidirectional(
        character
    ) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@pytest.mark.parametrize("each", [sanitise, sanitise_line, sanitise_cells])
def test_only_harmless_characters_remain(each: Callable[[str], str]) -> None:
    assert [ascii(character) for character in set(each(EVERY_CHARACTER)) if not is_harmless(character)] == []
    each(EVERY_CHARACTER).encode()


def test_a_line_is_one_line() -> None:
    assert "\n" not in sanitise_line(EVERY_CHARACTER)


@given(ANY_TEXT)
def test_it_is_idempotent(text: str) -> None:
    assert sanitise(sanitise(text)) == sanitise(text)


@given(ANY_TEXT, ANY_TEXT)
def test_chunks_make_no_difference(first: str, second: str) -> None:
    assert sanitise(first + second) == sanitise(first) + sanitise(second)


@given(ANY_TEXT)
def test_cells_are_kept_one_for_one(text: str) -> None:
    assert len(sanitise_cells(text)) == len(text)


def test_stand_ins_are_visible() -> None:
    assert (
        sanitise("a\x1b[31m\x00\x7f\x9b\u202e\ud800\u200f\U000e0041z")
        == "a␛[31m␀␡\ufffd<U+202E>\ufffd<U+200F><U+E0041>z"
    )


def test_ordinary_text_is_left_alone() -> None:
    text = "Grüße, 你好, مرحبا, 👩‍👩‍👧 — \ttab\nline"
    assert sanitise(text) == text
