"""Words are compared without case and accents, in either Unicode form."""

from __future__ import annotations

from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.text.folding import folded, unfolded_position


@pytest.mark.parametrize("text", ["café", "CAFÉ", "cafe\u0301", "Cafe"])
def test_accents_and_case_do_not_count(text: str) -> None:
    assert folded(text) == "cafe"


def test_marks_that_are_letters_count() -> None:
    assert folded("が") != folded("か")
    assert folded("が") == folded(normalize("NFD", "が"))


@given(st.text(st.sampled_from("aÉe\u0301ßΣ京ﬁ \n"), max_size=50))
def test_a_position_is_found_again(text: str) -> None:
    for position in range(len(text)):
        start = len(folded(text[:position]))
        found = unfolded_position(text, start)
        assert folded(text[:found]) == folded(text)[:start] or start == len(folded(text))


def test_a_position_far_into_a_long_text_is_found() -> None:
    text = "e\u0301" * 10_000 + "needle"
    assert text[unfolded_position(text, folded(text).index("needle")) :].lstrip("\u0301") == "needle"
