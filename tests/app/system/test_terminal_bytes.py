"""A terminal's answers and the bytes of its keys, through a real pseudo-terminal."""

from __future__ import annotations

import os
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from app.system.terminal_bytes import KEYS, LAST_QUESTION, QUESTIONS, Terminal, ask_terminal, escaped, read_keys
from tests.patience import PATIENCE_S

DEVICE = b"\x1b[?62;22c"


class Screen:
    """The other end: what the program writes arrives here, and what is written here was typed."""

    def __init__(self, master: int) -> None:
        self._master = master

    def type(self, data: bytes) -> None:
        os.write(self._master, data)

    def answer(self, answers: dict[str, bytes]) -> threading.Thread:
        """Answer all questions, those without an answer by what the terminal is alone."""

        def run() -> None:
            for name, question in QUESTIONS.items():
                asked = b""
                while not asked.endswith((question + LAST_QUESTION).encode()):
                    asked += os.read(self._master, 1)
                self.type(answers.get(name, b"") + DEVICE)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def ends() -> Iterator[tuple[Terminal, Screen, int]]:
    master, slave = os.openpty()
    try:
        yield Terminal(slave), Screen(master), slave
    finally:
        os.close(master)
        os.close(slave)


def test_its_answers_are_kept_byte_for_byte(ends: tuple[Terminal, Screen, int]) -> None:
    terminal, screen, _ = ends
    with terminal.unbuffered():
        thread = screen.answer({"name": b"\x1bP>|tmux 3.4\x1b\\", "kitty keyboard": b"\x1b[?1u"})
        answers = ask_terminal(terminal, clock=lambda: 0.0)
        thread.join(PATIENCE_S)
    assert answers == {
        "name": r"\x1bP>|tmux 3.4\x1b\\", "kitty keyboard": r"\x1b[?1u",
        "synchronized output": "", "bracketed paste": "", "background": "",
    }  # fmt: skip


def test_a_terminal_that_answers_nothing_is_not_waited_for(ends: tuple[Terminal, Screen, int]) -> None:
    terminal, _, _ = ends
    looks = iter(range(1000))
    with terminal.unbuffered():
        assert set(ask_terminal(terminal, clock=lambda: 10.0 * next(looks)).values()) == {""}


def test_keys_are_kept_as_they_come(ends: tuple[Terminal, Screen, int]) -> None:
    terminal, screen, _ = ends
    typed = {
        "enter": b"\r",
        "alt+left (option+left)": b"\x1bb",
        "ctrl+z": b"\x1a",
        "ctrl+s": b"\x13",
        "é": "é".encode(),
    }
    asked = iter(KEYS)
    with terminal.unbuffered():
        keys = read_keys(terminal, lambda sentence: screen.type(typed.get(next(asked), b" ")))
    assert keys == {key: escaped(data) for key, data in typed.items()}
    assert keys["é"] == r"\xc3\xa9"


def test_the_terminal_is_as_before_afterwards(ends: tuple[Terminal, Screen, int]) -> None:
    terminal, _, slave = ends
    before = termios.tcgetattr(slave)
    with suppress(KeyboardInterrupt), terminal.unbuffered():
        assert not termios.tcgetattr(slave)[3] & termios.ECHO
        assert termios.tcgetattr(slave)[3] & termios.ISIG, "ctrl+c still interrupts"
        raise KeyboardInterrupt
    assert termios.tcgetattr(slave) == before
