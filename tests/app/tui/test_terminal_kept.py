"""However the chat ends, what was typed and what was replied is there in the next run."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.app.tui.terminal import Terminal, slipstream
from tests.app.tui.test_terminal_signals import MOMENTS, WORDS, kept, reach
from tests.cases import cases
from tests.fakes.scripted_engine import Script

UP, CTRL_UP = "\x1b[A", "\x1b[1;5A"
LONG = "Long line of a draft.\n" * 5000


def close(terminal: Terminal, ending: str) -> None:
    match ending:
        case "ctrl+q":
            terminal.type("\x11")
        case "closed window":
            terminal.hang_up()
        case "SIGTERM":
            terminal.send(signal.SIGTERM)
    terminal.wait()


@pytest.mark.parametrize("ending", ["ctrl+q", "closed window", "SIGTERM"])
def test_a_draft_is_there_in_the_next_run(tmp_path: Path, ending: str) -> None:
    with slipstream(tmp_path, Script()) as terminal:
        terminal.until("ready")
        terminal.type("half a thought")
        terminal.until("half a thought")
        close(terminal, ending)
    with slipstream(tmp_path, Script()) as terminal:
        terminal.until("ready")
        terminal.type(UP)
        terminal.until("half a thought")


def test_a_long_draft_is_there_too(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script()) as terminal:
        terminal.until("ready")
        terminal.paste(LONG)
        terminal.until("pasted text 1")
        terminal.type("\x11")
        terminal.wait()
    with slipstream(tmp_path, Script(pieces=["An answer."])) as terminal:
        terminal.until("ready")
        terminal.type(UP)
        terminal.until("[text 1")
        terminal.type("\r")
        terminal.until("An answer.")
        close(terminal, "ctrl+q")
    assert kept(tmp_path)[0][1] == LONG.rstrip()


def test_a_draft_beside_a_message_that_is_edited_is_there_too(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["An answer."])) as terminal:
        terminal.until("ready")
        terminal.type("Question\r")
        terminal.until("1 tok")
        terminal.type("my draft")
        terminal.until("my draft")
        terminal.type(CTRL_UP)
        terminal.until("Editing your last message")
        terminal.type(", changed")
        terminal.until(", changed")
        terminal.type("\x11")
        terminal.wait()
    with slipstream(tmp_path, Script()) as terminal:
        terminal.until("ready")
        terminal.type(UP)
        terminal.until("Question, changed")
        terminal.type(UP)
        terminal.until("my draft")


@pytest.mark.parametrize("ending", ["ctrl+q", "closed window"])
def test_a_reply_that_was_cut_off_says_so_when_it_is_reopened(tmp_path: Path, ending: str) -> None:
    with slipstream(tmp_path, MOMENTS["stream"]) as terminal:
        reach(terminal, "stream")
        close(terminal, ending)
    with slipstream(tmp_path, Script(pieces=[" They are not."]), "--continue") as terminal:
        terminal.until("stopped · /continue")
        terminal.until("ready")
        terminal.type("/continue\r")
        terminal.until("They are not.")
        close(terminal, "ctrl+q")
    assert kept(tmp_path)[-1] == ("assistant", f"{WORDS} They are not.", "complete")


def test_after_escape_it_says_the_same(tmp_path: Path) -> None:
    with slipstream(tmp_path, MOMENTS["stream"]) as terminal:
        reach(terminal, "stream")
        terminal.type("\x1b")
        terminal.until("stopped · /continue")


@pytest.mark.parametrize("delay_s", cases([0.0, 0.02, 0.05], [n / 200 for n in range(40)]))
def test_a_window_closed_in_the_moment_of_enter(tmp_path: Path, delay_s: float) -> None:
    with slipstream(tmp_path, Script(pieces=["word "] * 1000, pause_s=0.01)) as terminal:
        terminal.until("ready")
        terminal.type("A question")
        terminal.until("A question")
        terminal.type("\r")
        terminal.settle_for(delay_s)
        terminal.hang_up()
        assert terminal.wait() == 129
    assert not [path for path in tmp_path.rglob("*.log") if "crash" in path.read_text()]
    [history] = tmp_path.rglob("prompt_history.jsonl")
    assert "A question" in history.read_text()
    if messages := kept_or_none(tmp_path):
        assert messages[0] == ("user", "A question", "complete")
        assert messages[1][2] == "interrupted"


def kept_or_none(home: Path) -> list[tuple[object, ...]]:
    try:
        return kept(home)
    except (ValueError, TypeError):
        return []
