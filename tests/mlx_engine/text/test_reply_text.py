"""Thoughts and answer from a stream of tokens, told apart by ids."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_engine.text.prompt import ChatFormat
from mlx_engine.text.reply_text import Piece
from models.pocket import TARGET_FOLDER

CHAT = ChatFormat(TARGET_FOLDER)
OPEN, CLOSE = 100, 101


def ids(text: str) -> list[int]:
    return CHAT.encode(text)


def decoded(*runs: list[int], step: int = 1000) -> tuple[str, str]:
    """(answer, thoughts) of tokens that come `step` at a time."""
    stream = CHAT.reply_decoder()
    every = [id for run in runs for id in run]
    pieces = [stream.add(every[at : at + step]) for at in range(0, len(every), step)]
    pieces.append(stream.finish())
    return "".join(piece.text for piece in pieces), "".join(piece.thinking for piece in pieces)


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([ids("Hello")], ("Hello", "")),
        ([[OPEN], ids("thought\nHm.\n"), [CLOSE], ids("Hello")], ("Hello", "Hm.\n")),
        ([[OPEN], ids("thought\n"), [CLOSE], ids("7")], ("7", "")),
        ([[OPEN], ids("thought"), [CLOSE], ids("7")], ("7", "")),
        ([[OPEN], ids("thoughtful words"), [CLOSE], ids("7")], ("7", "thoughtful words")),
        ([[OPEN], ids("plan\nfirst"), [CLOSE], ids("7")], ("7", "plan\nfirst")),
        ([[OPEN], [CLOSE], ids("7")], ("7", "")),
        ([[OPEN], ids("thought\nnever closed")], ("", "never closed")),
        ([[CLOSE], ids("never opened")], ("never opened", "")),
        ([ids("a"), [CLOSE], ids("b"), [CLOSE], ids("c")], ("abc", "")),
        ([[OPEN], ids("thought\na"), [OPEN], ids("thought\nb"), [CLOSE], ids("c")], ("c", "ab")),
        ([ids("a"), [OPEN], ids("thought\nb"), [CLOSE], ids("c")], ("ac", "b")),
        ([ids("the word thought\nis a word")], ("the word thought\nis a word", "")),
    ],
)
def test_thoughts_and_answer(runs: list[list[int]], expected: tuple[str, str], step: int) -> None:
    assert decoded(*runs, step=step) == expected


def test_marks_that_are_typed_out_are_text() -> None:
    text = "write <|channel>thought\n and <channel|> like this"
    assert decoded(ids(text)) == (text, "")


def test_the_answers_tokens_leave_the_thoughts_out() -> None:
    stream = CHAT.reply_decoder()
    stream.add([OPEN, *ids("thought\nHm.\n"), CLOSE, *ids("Hello")])
    assert stream.answer_ids == ids("Hello")
    assert stream.has_plain_answer
    stream.add([105])
    assert not stream.has_plain_answer, "a control token stands for no text and must not come back as one"


def test_a_character_cut_by_a_mark_shows_that_something_was_there() -> None:
    cut = ids("🙂")[:-1]
    text, thoughts = decoded([OPEN], ids("thought\nx"), cut, [CLOSE], ids("ok"))
    assert text == "ok"
    assert thoughts.rstrip("�") == "x" != thoughts


@settings(max_examples=150)
@given(st.lists(st.sampled_from([OPEN, CLOSE]) | st.text(max_size=6).map(ids), max_size=12), st.integers(1, 5))
def test_how_the_tokens_come_makes_no_difference(parts: list[int | list[int]], step: int) -> None:
    runs = [[part] if isinstance(part, int) else part for part in parts]
    assert decoded(*runs, step=step) == decoded(*runs)


def test_a_piece_may_be_nothing() -> None:
    assert CHAT.reply_decoder().add([]) == Piece("", "")
