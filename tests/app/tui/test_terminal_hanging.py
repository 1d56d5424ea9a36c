"""The chat in a real terminal with an engine that stands still: it goes on, says so, and can always be quit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.app.tui.terminal import Terminal, slipstream
from tests.app.tui.test_terminal_signals import kept
from tests.fakes.scripted_engine import Script

LONG = "word " * 60_000
"""More than a pipe takes."""


def engine_of(home: Path) -> int:
    """The process id of the engine."""
    return int((home / "engine.pid").read_text())


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    """After a failure, an engine that stands still would stay for ever: let it see that its parent is gone."""
    yield
    let_go_on(tmp_path)


def let_go_on(home: Path) -> None:
    """Continue the engine's process, if there is one."""
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(engine_of(home), signal.SIGCONT)


def stop_engine(home: Path, terminal: Terminal) -> None:
    """Wait until the engine is ready, and stop its process."""
    terminal.until("ready")
    os.kill(engine_of(home), signal.SIGSTOP)


@pytest.mark.parametrize("way", ["ctrl+q", "SIGTERM"])
@pytest.mark.parametrize("text", ["Hi", LONG], ids=["small", "long"])
def test_a_chat_can_be_quit_while_its_engine_stands_still(tmp_path: Path, way: str, text: str) -> None:
    with slipstream(tmp_path, Script(), faults="hasty") as terminal:
        stop_engine(tmp_path, terminal)
        terminal.paste(text)
        terminal.type("\r")
        terminal.until("The engine has not answered")
        if way == "ctrl+q":
            terminal.type("\x11")
        else:
            terminal.send(signal.SIGTERM)
        assert terminal.wait() == (0 if way == "ctrl+q" else 143)
        assert terminal.is_as_before
    assert [row[0] for row in kept(tmp_path)] == ["user", "assistant"]
    with pytest.raises(ProcessLookupError):
        os.kill(engine_of(tmp_path), 0)


def test_an_engine_that_stands_still_is_restarted_by_the_stop_key(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["An answer."]), faults="hasty") as terminal:
        stop_engine(tmp_path, terminal)
        before = engine_of(tmp_path)
        terminal.type("A question\r")
        terminal.until("press esc to restart it")
        terminal.until("engine does not answer")
        terminal.type("\x1b")
        terminal.until("Restarting the engine")
        terminal.until(lambda: engine_of(tmp_path) != before)
        terminal.type("\r")
        terminal.until("An answer.")
        terminal.type("\x11")
        assert terminal.wait() == 0
    assert kept(tmp_path)[-2:] == [("user", "A question", "complete"), ("assistant", "An answer.", "complete")]


def test_an_engine_that_answers_again_ends_the_alarm(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["An answer."]), faults="hasty") as terminal:
        stop_engine(tmp_path, terminal)
        terminal.type("A question\r")
        terminal.until("engine does not answer")
        os.kill(engine_of(tmp_path), signal.SIGCONT)
        terminal.until("An answer.")
        terminal.type("\x11")
        assert terminal.wait() == 0
