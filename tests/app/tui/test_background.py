"""The terminal's background colour: asked for once, never waited for, never typed into the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.tui.terminal.background import QUESTION, BackgroundAnswer
from tests.app.tui.terminal import slipstream
from tests.fakes.scripted_engine import Script

LIGHT, DARK = "\x1b]11;rgb:ffff/fafa/f0f0\x1b\\", "\x1b]11;rgb:1e/1e/2e\x07"


def answers_of(chunks: list[str]) -> tuple[str, list[bool]]:
    told: list[bool] = []
    answer = BackgroundAnswer(told.append)
    answer.expect()
    return "".join(answer.feed(chunk) for chunk in chunks) + answer.flush(), told


@pytest.mark.parametrize(("bytes_", "is_light"), [(LIGHT, True), (DARK, False)])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 21, 99])
def test_the_answer_is_taken_out_however_it_is_split(bytes_: str, is_light: bool, size: int) -> None:
    whole = f"before\x1b[A{bytes_}after\x1b"
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert answers_of(chunks) == ("before\x1b[Aafter\x1b", [is_light])


@pytest.mark.parametrize("typed", ["\x1b", "a\x1b]", "\x1b[A", "\x1b]11;", "\x1b]12;rgb:0/0/0\x07", "plain"])
def test_what_is_typed_passes(typed: str) -> None:
    assert answers_of([typed]) == (typed, [])


def test_an_answer_without_a_colour_is_none() -> None:
    assert answers_of(["\x1b]11;rgb:ff//\x07x"]) == ("x", [])


def test_after_a_while_nothing_is_looked_at() -> None:
    now_s = 0.0
    told: list[bool] = []
    answer = BackgroundAnswer(told.append, lambda: now_s)
    assert answer.feed(LIGHT) == LIGHT, "nothing was asked"
    answer.expect()
    assert answer.feed("\x1b") == ""
    now_s = 3.0
    assert answer.feed("x") == "\x1bx"
    assert answer.feed(LIGHT) == LIGHT
    assert told == []


@pytest.mark.parametrize(("answer", "is_light"), [(LIGHT, True), (DARK, False), ("", False)])
def test_a_light_terminal_gets_the_light_theme(tmp_path: Path, answer: str, is_light: bool) -> None:
    own = {"COLORTERM": "truecolor"}
    with slipstream(tmp_path, Script(pieces=["An answer."]), environment=own) as terminal:
        terminal.until(lambda: QUESTION.encode() in terminal.written)
        terminal.type(answer)
        terminal.until("ready")
        terminal.settle(0.3)
        terminal.written.clear()
        terminal.type("Hi\r")
        terminal.until("An answer.")
        assert (b"48;2;18;18;18" not in terminal.written) is is_light, "the dark theme's background"
        terminal.type("\x11")
        assert terminal.wait() == 0
    assert b"11;rgb" not in (tmp_path / "state" / "prompt_history.jsonl").read_bytes()
    assert not (tmp_path / "state" / "state.json").exists(), "the person has not chosen a theme"


def test_a_chosen_theme_is_not_asked_about(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(), environment={"SLIPSTREAM_THEME": "nord"}) as terminal:
        terminal.until("ready")
        assert QUESTION.encode() not in terminal.written
        terminal.type("\x11")
        assert terminal.wait() == 0
