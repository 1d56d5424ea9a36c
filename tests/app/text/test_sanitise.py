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


NEEDED_BY_SCRIPTS = {
    *(0x200C, 0x200D),
    *(*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD),  # signs that can be seen
    *range(0x13430, 0x13440),  # how hieroglyphs are arranged
}
DEFAULT_IGNORABLE = (
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010)),
    *(*range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0),
    *(*range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)),
)
VARIATION_SELECTORS = {*range(0x180B, 0x180E), 0x180F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


@pytest.mark.parametrize("each", [sanitise, sanitise_line, sanitise_cells])
def test_nothing_invisible_passes_but_what_scripts_need(each: Callable[[str], str]) -> None:
    formats = {code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"}
    passed = {code for code in {*formats, *DEFAULT_IGNORABLE} if chr(code) in each(f"a{chr(code)}b")}
    assert {*map(hex, passed)} == {*map(hex, (NEEDED_BY_SCRIPTS & passed) | VARIATION_SELECTORS)}
    assert passed >= {0x200C, 0x200D, 0x600, 0x13430}


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
