"""The real program on a disk that is really full for a while, in a terminal."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from app.store.transfer import read_file
from tests.app.store.support import FILLER, fill_disk, last_chat, small_disk
from tests.app.tui.terminal import Terminal, slipstream
from tests.fakes.scripted_engine import Script

CTRL_Q = "\x11"
SCRIPT = Script(pieces=["An answer."])


def ask(terminal: Terminal, text: str) -> None:
    terminal.type(f"{text}\r")
    terminal.until("An answer.")
    terminal.until("ready")


def test_what_was_written_on_a_full_disk_is_saved_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "home") as home, slipstream(home, SCRIPT) as terminal:
        terminal.until("ready")
        ask(terminal, "one")
        fill_disk(home)
        ask(terminal, "two")
        terminal.until("not saved")
        (home / FILLER).unlink()
        terminal.until("saved again")
        ask(terminal, "three")
        expected = [text for question in ("one", "two", "three") for text in (question, "An answer.")]
        terminal.until(lambda: [text for _, text, _ in last_chat(home / "data" / "chats.db")] == expected)
        terminal.type(CTRL_Q)
        assert terminal.wait() == 0


def test_quitting_on_a_full_disk_asks_for_a_file(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    with small_disk(tmp_path / "home") as home, slipstream(home, SCRIPT) as terminal:
        terminal.until("ready")
        fill_disk(home)
        ask(terminal, "one")
        terminal.until("not saved")
        terminal.type(CTRL_Q)
        terminal.until("1 chat has unsaved messages")
        terminal.type(f"{kept}\r")
        assert terminal.wait() == 0
        assert b"They are lost" not in terminal.written
    (chat,) = read_file(kept)
    assert [message.text for message in chat.messages] == ["one", "An answer."]


@pytest.mark.parametrize("how", ["quit twice", "sigterm"])
def test_what_is_lost_is_said_at_the_end(tmp_path: Path, how: str) -> None:
    with small_disk(tmp_path / "home") as home, slipstream(home, SCRIPT) as terminal:
        terminal.until("ready")
        fill_disk(home)
        ask(terminal, "one")
        terminal.until("not saved")
        if how == "sigterm":
            terminal.send(signal.SIGTERM)
        else:
            terminal.type(CTRL_Q)
            terminal.until("1 chat has unsaved messages")
            terminal.type(CTRL_Q)
        terminal.wait()
        assert b"They are lost" in terminal.written
