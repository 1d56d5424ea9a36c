"""Streamed text, wrapped at words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.text.wrapping import WordWrap


def test_lines_break_between_words() -> None:
    wrap = WordWrap()
    assert wrap.add("one two three four", 9) == "one two \nthree \nfour"
    assert wrap.add(" five\nsix", 9) == " five\nsix"
    assert wrap.column == 3


def test_a_word_in_two_pieces_is_not_broken_between_them() -> None:
    wrap = WordWrap()
    assert wrap.add("one two th", 9) == "one two \nth"
    assert wrap.add("ree four", 9) == "ree \nfour"


def test_wide_characters_take_two_cells() -> None:
    assert WordWrap().add("日本 日本 日本", 10) == "日本 日本 \n日本"


def test_a_line_that_the_person_ends_begins_anew() -> None:
    wrap = WordWrap()
    wrap.add("You: ", 10)
    wrap.begin_line()
    assert wrap.add("nine cell", 10) == "nine cell"


@given(st.lists(st.text("ab \n", max_size=30)), st.integers(1, 20))
def test_nothing_but_line_breaks_is_added(pieces: list[str], width: int) -> None:
    wrap, plain = WordWrap(), WordWrap()
    wrapped = "".join(wrap.add(piece, width) for piece in pieces)
    assert "".join(plain.add(piece, 0) for piece in pieces) == "".join(pieces)
    assert wrapped.split() == "".join(pieces).split()
    whole = "".join(pieces)
    if max(map(len, whole.split()), default=0) <= width:
        assert max(map(len, WordWrap().add(whole, width).split("\n"))) <= width


def test_a_word_that_fills_its_last_line_leaves_no_room_in_it() -> None:
    assert WordWrap().add("abcdefghij kl", 5) == "abcdefghij\nkl"
    assert WordWrap().add("abcdefgh ij kl", 5) == "abcdefgh \nij kl"
