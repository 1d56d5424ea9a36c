"""Keys and clicks that come faster than lists open and close."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.app.tui.terminal import answered, slipstream
from tests.app.tui.test_terminal_signals import kept
from tests.fakes.scripted_engine import Script

PALETTE, ESCAPE, PAGE_DOWN, PAGE_UP = "\x10", "\x1b", "\x1b[6~", "\x1b[5~"
F1, F2, F4, F6 = "\x1bOP", "\x1bOQ", "\x1bOS", "\x1b[17~"
LISTS = (F1, F2, F4, F6, PALETTE, "/theme\r")
CLICK = "\x1b[<0;1;1M\x1b[<0;1;1m"
"""In the corner, beside every list."""


@pytest.mark.parametrize("keys", ["\x1b[B\r\r\r", CLICK * 3, f"\x1b{CLICK}\r"])
def test_the_palette_closes_once(tmp_path: Path, keys: str) -> None:
    with slipstream(tmp_path, Script()) as terminal:
        terminal.until("ready")
        terminal.type(PALETTE)
        terminal.until("Search for commands")
        terminal.until("Attach a file")
        terminal.settle(0.2)
        terminal.written.clear()
        terminal.type(keys)
        terminal.until("Message")
        terminal.settle(0.2)
        terminal.type("\x11")
        assert terminal.wait() == 0


@pytest.mark.parametrize("rows", [24, 3])
def test_pages_of_a_list_that_has_no_room_yet(tmp_path: Path, rows: int) -> None:
    with answered(tmp_path) as terminal:
        terminal.resize(80, rows)
        for opening in LISTS:
            terminal.type(f"{opening}{PAGE_DOWN}{PAGE_UP}")
            terminal.settle(0.2)
            terminal.type(f"{PAGE_UP}{PAGE_DOWN}")
            terminal.settle(0.2)
            terminal.type(ESCAPE)
            terminal.settle(0.2)
        terminal.type("\x11")
        assert terminal.wait() == 0


def test_what_is_typed_behind_enter_comes_after_it(tmp_path: Path) -> None:
    with answered(tmp_path) as terminal:
        terminal.type(F4)
        terminal.until("2 messages")
        terminal.type(f"\x12\x15one\r\x12 two\r{F4}after\r")
        terminal.until(lambda: len(kept(tmp_path)) == 4)
        terminal.type("\x11")
        assert terminal.wait() == 0
    assert kept(tmp_path)[2][1] == "after"
    [database] = tmp_path.rglob("chats.db")
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT title FROM chat").fetchall() == [("one two",)]
