"""An evening with the real program: in tmux, on the pocket pair, from the first key to the second start."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

import pytest

from tests.paths import ROOT
from tests.patience import PROGRAM_PATIENCE_S

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]


class Tmux:
    """A tmux server of its own with one window, in which the chat runs."""

    def __init__(self, home: Path) -> None:
        self._home = home
        # Not in the test's own folder, whose path may be too long for a socket (104 bytes on macOS).
        self._folder = TemporaryDirectory(dir="/tmp")
        self._socket = Path(self._folder.name, "tmux")
        self._run("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sh")
        self._run("set-option", "-g", "remain-on-exit", "on")

    def start(self, *options: str) -> None:
        """Open the chat, in place of what ran before."""
        words = ["env", f"SLIPSTREAM_HOME={self._home}", f"PYTHONPATH={ROOT}", "SHELL=/bin/sh"]
        self._run("respawn-pane", "-k", *words, sys.executable, "-m", "app.cli", "chat", *options)
        self.until_seen("Message")

    def press(self, *keys: str) -> None:
        """Keys by tmux's names."""
        self._run("send-keys", *keys)

    def type(self, text: str) -> None:
        """As if typed, and seen."""
        self._run("send-keys", "-l", text)
        self.until(lambda: text[-30:] in self.screen(), f"{text!r} typed")

    def paste(self, text: str) -> None:
        """As a terminal pastes."""
        self._run("set-buffer", text)
        self._run("paste-buffer", "-p")

    def screen(self) -> str:
        """What is drawn."""
        return self._run("capture-pane", "-p")

    def until_seen(self, pattern: str) -> None:
        """Wait for a regular expression to match the screen."""
        self.until(lambda: re.search(pattern, self.screen()), pattern)

    def until(self, is_true: Callable[[], object], what: str) -> None:
        """Wait; fails with the screen."""
        give_up_s = monotonic() + PROGRAM_PATIENCE_S
        while not is_true():
            assert monotonic() < give_up_s, f"never came: {what}\n{self.screen()}"
            sleep(0.05)

    def has_ended(self) -> bool:
        """Whether the chat has quit."""
        return self._run("display-message", "-p", "#{pane_dead}").strip() == "1"

    def close(self) -> None:
        """End everything."""
        self._run("kill-server")
        self._folder.cleanup()

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=PROGRAM_PATIENCE_S,
        )
        return done.stdout


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    server = Tmux(tmp_path)
    yield server
    server.close()


def kept(home: Path) -> list[tuple[str, str, str]]:
    """Role, state and text of every message on the disk."""
    database = next(home.rglob("chats.db"))
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT role, state, text FROM message ORDER BY id").fetchall()


def test_an_evening(tmux: Tmux, tmp_path: Path) -> None:
    # Type, and a reply streams in, with its figures below.
    tmux.start("--draft", "4", "--temp", "0")
    tmux.until_seen(r" ready")
    tmux.type("How do I turn drafting off?")
    tmux.press("Enter")
    tmux.until_seen(r"ctrl\+t[\s\S]*\d+ tok · .*tok/s")

    # Toggle drafting while a reply is being made.
    tmux.type("What is speculative decoding?")
    tmux.press("Enter")
    tmux.press("C-t")
    tmux.until_seen(r"draft OFF")
    tmux.until(lambda: [state for _, state, _ in kept(tmp_path)][3:] == ["complete"], "the second reply")
    tmux.press("C-t")
    tmux.until_seen(r"draft ON|draft 4")

    # Paste a long text, and stop while it is being read.
    tmux.paste("The target reads this line before it answers.\n" * 90)
    tmux.until_seen(r"pasted text 1")
    tmux.press("Enter")
    tmux.until(lambda: len(kept(tmp_path)) == 6, "the long message on the disk")
    tmux.press("Escape")
    tmux.until(lambda: kept(tmp_path)[-1][1] == "stopped", "the stop")

    # Another reply to the same message stands beside it.
    tmux.press("C-r")
    tmux.until_seen(r"‹ 2/2 ›")
    tmux.until(lambda: kept(tmp_path)[-1][1] == "complete", "the other reply")

    # A second chat, and back to the first by the list.
    tmux.press("C-n")
    tmux.type("Hello there")
    tmux.press("Enter")
    tmux.until(lambda: len(kept(tmp_path)) == 9 and kept(tmp_path)[-1][1] == "complete", "the second chat")
    tmux.press("F4")
    tmux.until_seen(r"enter: open")
    tmux.press("Down")
    tmux.press("Enter")
    tmux.until_seen(r"‹ 2/2 ›")

    # Quit and come back: the first chat is the one that is gone on with, and all is still there.
    before = kept(tmp_path)
    tmux.press("C-q")
    tmux.until(tmux.has_ended, "the end")
    tmux.start("--continue", "--draft", "4", "--temp", "0")
    tmux.until_seen(r" ready")
    assert kept(tmp_path) == before
    tmux.press("F4")
    tmux.until_seen(r"Hello there[\s\S]*enter: open")
    tmux.until_seen(r"How do I turn drafting off\?")
