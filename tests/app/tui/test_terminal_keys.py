"""Keys as the bytes that terminals send for them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from app.tui.terminal.driver import KEYBOARD, KEYBOARD_AS_BEFORE
from tests.app.tui.terminal import Terminal, slipstream
from tests.app.tui.test_terminal_signals import kept
from tests.fakes.scripted_engine import Script

ALT_LEFT = ("\x1b[1;3D", "\x1b\x1b[D", "\x1b\x1bOD", "\x1bb", "\x1b[1;9D", "\x1b[98;3u")


def sent(home: Path, typed: str) -> str:
    """The message that is sent when this is typed."""
    with slipstream(home, Script(pieces=["Yes."])) as terminal:
        terminal.until("ready")
        terminal.type(typed)
        terminal.type("\r")
        terminal.until("Yes.")
        terminal.type("\x11")
        assert terminal.wait() == 0
    return str(kept(home)[0][1])


@pytest.mark.parametrize("newline", ["\x1b\r", "\x1b[27;2;13~", "\x1b[13;2u", "\x1b[13;3u", "\n"])
def test_new_lines(tmp_path: Path, newline: str) -> None:
    assert sent(tmp_path, f"one{newline}two") == "one\ntwo"


@pytest.mark.parametrize("alt_left", ALT_LEFT)
def test_alt_and_an_arrow_moves_by_a_word(tmp_path: Path, alt_left: str) -> None:
    assert sent(tmp_path, f"one two{alt_left}X") == "one Xtwo"


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("one two\x01\x1bd!", "! two"),
        ("one two\x01\x1b[100;3u!", "! two"),
        ("a\x1bp\x1bn\x1bx\x1b2b", "ab"),
        ("one two\x1b\x7f!", "one !"),
        ("a\x1b[9999999999u\x1b[97;1;99999999ub", "ab"),
    ],
)
def test_escape_and_a_character_types_nothing(tmp_path: Path, typed: str, text: str) -> None:
    assert sent(tmp_path, typed) == text


def test_keys_of_the_text_work_in_the_order_of_typing(tmp_path: Path) -> None:
    assert sent(tmp_path, "one twox\x7f\x1b[D\x1b[D\x17three \x05!\x1b[H- ") == "- one three wo!"


def finished(terminal: Terminal, home: Path, replies: int) -> None:
    terminal.until(
        lambda: [state for role, _, state in kept(home) if role == "assistant"] == ["complete"] * replies
    )
    terminal.settle(0.2)


@pytest.mark.parametrize("alt_up", ["\x1b\x1b[A", "\x1b\x1b[D", "\x1b\x1bOC"])
def test_option_as_meta_does_not_stop_the_reply(tmp_path: Path, alt_up: str) -> None:
    with slipstream(tmp_path, Script(pieces=["word "] * 40, pause_s=0.02)) as terminal:
        terminal.until("ready")
        terminal.type("Hi\r")
        terminal.until("word word")
        terminal.type(alt_up)
        finished(terminal, tmp_path, 1)
        terminal.type("\x11")
        assert terminal.wait() == 0


def test_versions_are_walked_in_an_empty_prompt_and_never_silently(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["Yes."])) as terminal:
        terminal.until("ready")
        terminal.type("Hi\r")
        finished(terminal, tmp_path, 1)
        terminal.type("\x12")
        finished(terminal, tmp_path, 2)
        terminal.until("‹ 2/2 ›")
        terminal.written.clear()
        terminal.type("\x1b[D\x1b[C\x1bOD")
        terminal.type("one two\x1b[1;3D\x15\x0b")
        terminal.settle(0.3)
        assert "‹".encode() not in terminal.drawn
        assert b"Version" not in terminal.drawn
        for key, words in ((ALT_LEFT[0], "Version 1 of 2"), ("\x1bf", "Version 2 of 2")):
            terminal.written.clear()
            terminal.type(key)
            terminal.until(words)
        terminal.type("\x11")
        assert terminal.wait() == 0


def test_the_last_message_is_edited_by_a_key_that_every_terminal_passes_on(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["Yes."])) as terminal:
        terminal.until("ready")
        terminal.type("Hi\r")
        finished(terminal, tmp_path, 1)
        terminal.type("\x0c")
        terminal.until("Editing your last message")
        terminal.type("!\r")
        finished(terminal, tmp_path, 2)
        terminal.type("\x11")
        assert terminal.wait() == 0
    assert [text for role, text, _ in kept(tmp_path) if role == "user"] == ["Hi", "Hi!"]


def test_ctrl_keys_of_another_alphabet(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["Yes."])) as terminal:
        terminal.until("ready")
        terminal.type("\x1b[1079::112;5u")
        terminal.until("Search")
        terminal.type("\x1b[27u")
        terminal.settle(0.2)
        terminal.type("\x1b[1089::99;5u\x1b[1089::99;5u")
        assert terminal.wait() == 130


def test_control_sequences_do_not_end_it(tmp_path: Path) -> None:
    chance = random.Random(18)
    with slipstream(tmp_path, Script(pieces=["Yes."])) as terminal:
        terminal.until("ready")
        for _ in range(100):
            some = (
                "\x1b[" + "".join(chance.choice("0123456789;:") for _ in range(chance.randint(4, 20))) + final
                for final in chance.choices("u~ABCDHFPQRSMmtcyn", k=20)
            )
            terminal.type("".join(some))
        terminal.settle(0.5)
        assert terminal.process.poll() is None
        terminal.type("\x11")
        assert terminal.wait() == 0


@pytest.mark.parametrize(
    ("environment", "is_on"),
    [
        ({}, True),
        ({"TERM_PROGRAM": "iTerm.app"}, False),
        ({"LC_TERMINAL": "iTerm2"}, False),
        ({"LC_TERMINAL": "iTerm2", "TERM_PROGRAM": "tmux", "TMUX": "/tmp/tmux,1,0"}, True),
        ({"TEXTUAL_DISABLE_KITTY_KEY": "1"}, False),
    ],
)
def test_the_kitty_protocol_is_left_off_where_it_loses_dead_keys(
    tmp_path: Path, environment: dict[str, str], is_on: bool
) -> None:
    with slipstream(tmp_path, Script(pieces=["Yes."]), environment=environment) as terminal:
        terminal.until("ready")
        terminal.type("one\x1b[1;3D\x1b[27;2;13~\x11")
        assert terminal.wait() == 0
    assert (KEYBOARD.encode() in terminal.written) == is_on
    assert (KEYBOARD_AS_BEFORE.encode() in terminal.written) == is_on


@pytest.mark.parametrize(
    ("early", "text"),
    [
        ("early words", "early words"),
        ("early words\r", "early words"),
        ("early\rwords\r\r", "early\nwords"),
        ("\x1b[200~pasted\rwords\x1b[201~", "pasted\nwords"),
        ("one\ttwo", "one\ttwo"),
    ],
)
def test_what_is_typed_before_the_first_frame_is_in_the_prompt(tmp_path: Path, early: str, text: str) -> None:
    with slipstream(tmp_path, Script(pieces=["Yes."])) as terminal:
        terminal.type(early)
        terminal.until("ready")
        terminal.settle(0.3)
        assert kept(tmp_path) == [], "nothing is sent by itself"
        terminal.type(" more\r")
        terminal.until("Yes.")
        terminal.type("\x11")
        assert terminal.wait() == 0
    assert kept(tmp_path)[0][1] == f"{text} more"
