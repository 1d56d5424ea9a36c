"""However the chat ends, the terminal is restored and the reply so far is in the store."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import product
from pathlib import Path

import pytest
from textual.drivers.linux_driver import LinuxDriver

from app.tui.terminal.driver import TerminalDriver
from tests.app.store.support import last_chat
from tests.app.tui import vt
from tests.app.tui.terminal import Terminal, slipstream
from tests.cases import cases
from tests.fakes.scripted_engine import Script

ENDINGS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WORDS = "These words must not be lost."
MOMENTS = {
    "load": Script(stalls_at="load"),
    "prefill": Script(stalls_at="prefill"),
    "stream": Script(pieces=[WORDS], stalls_at="stream"),
    "ready": Script(),
}
SOME = [(signal.SIGINT, "load"), (signal.SIGHUP, "prefill"), (signal.SIGTERM, "stream"), (signal.SIGINT, "ready")]


def reach(terminal: Terminal, moment: str) -> None:
    """Bring the chat into the state that `moment` names."""
    terminal.until("loading" if moment == "load" else "ready")
    if moment in ("prefill", "stream"):
        terminal.type("A question\r")
        terminal.until("reading prompt" if moment == "prefill" else WORDS)


def kept(home: Path) -> list[tuple[object, ...]]:
    """Role, text and state of every message in the newest chat."""
    [database] = home.rglob("chats.db")
    return last_chat(database)


@pytest.mark.parametrize(("number", "moment"), cases(SOME, list(product(ENDINGS, MOMENTS))))
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals, moment: str) -> None:
    with slipstream(tmp_path, MOMENTS[moment]) as terminal:
        reach(terminal, moment)
        terminal.send(number)
        assert terminal.wait() == ENDINGS[number]
        assert terminal.is_as_before
        assert vt.is_given_back(vt.read(bytes(terminal.written)))
    if moment in ("prefill", "stream"):
        text = WORDS if moment == "stream" else ""
        assert kept(tmp_path) == [("user", "A question", "complete"), ("assistant", text, "interrupted")]


@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_before_the_screen_leaves_the_terminal_alone(tmp_path: Path, number: signal.Signals) -> None:
    with slipstream(tmp_path, Script()) as terminal:
        terminal.send(number)
        assert terminal.wait() in (-number, ENDINGS[number])
        assert terminal.is_as_before
        assert vt.is_given_back(vt.read(bytes(terminal.written).replace(b"^C", b"")))


def test_two_signals_while_it_ends(tmp_path: Path) -> None:
    with slipstream(tmp_path, MOMENTS["stream"]) as terminal:
        reach(terminal, "stream")
        for _ in range(5):
            terminal.send(signal.SIGTERM)
            terminal.send(signal.SIGINT)
        assert terminal.wait() in (-signal.SIGTERM, 130, 143)
        assert terminal.is_as_before
    assert kept(tmp_path)[-1] == ("assistant", WORDS, "interrupted")


def test_a_window_that_is_closed_ends_it_and_keeps_the_reply(tmp_path: Path) -> None:
    with slipstream(tmp_path, MOMENTS["stream"]) as terminal:
        reach(terminal, "stream")
        terminal.hang_up()
        assert terminal.wait() == 129
    assert kept(tmp_path)[-1] == ("assistant", WORDS, "interrupted")


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_it_can_be_suspended_and_resumed(tmp_path: Path, number: signal.Signals) -> None:
    with slipstream(tmp_path, MOMENTS["stream"]) as terminal:
        reach(terminal, "stream")
        terminal.send(number)
        assert os.WIFSTOPPED(os.waitpid(terminal.process.pid, os.WUNTRACED)[1])
        terminal.settle(0.1)
        if number == signal.SIGTSTP:  # of the other nobody is told
            assert terminal.is_as_before
            assert vt.is_given_back(vt.read(bytes(terminal.written)))
        before = len(terminal.written)
        terminal.send(signal.SIGCONT)
        terminal.until(lambda: b"\x1b[?1049h" in terminal.written[before:])
        terminal.until(lambda: WORDS.encode() in terminal.written[before:])
        terminal.type("\x11")
        assert terminal.wait() == 0
        assert terminal.is_as_before
        assert vt.is_given_back(vt.read(bytes(terminal.written)))


def test_a_crash_restores_the_terminal_and_prints_no_typed_text(tmp_path: Path) -> None:
    token = {"HF_TOKEN": "hf_SECRET-TOKEN"}
    with slipstream(tmp_path, Script(), faults="crash", environment=token) as terminal:
        terminal.until("ready")
        terminal.paste("SECRET-PROMPT")
        terminal.type("\x1b[5~")
        assert terminal.wait() == 1
        assert terminal.is_as_before
        written = bytes(terminal.written)
        assert vt.is_given_back(vt.read(written))
        afterwards = written.rpartition(b"\x1b[?1049l")[2]
        assert b"Slipstream crashed (KeyError)" in afterwards
        assert b"SECRET-PROMPT" not in afterwards
        assert b"SECRET-KEY" not in written
        assert b"SECRET-TOKEN" not in written
    logged = "".join(each.read_text() for each in tmp_path.rglob("*.log"))
    assert "crash of the chat" in logged
    assert "SECRET-" not in logged


@pytest.mark.parametrize("name", ["_sigtstp_application", "_sigcont_application"])
def test_a_signal_inside_a_write_does_not_write(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's queue would wait for itself."""
    done: list[str] = []
    monkeypatch.setattr(LinuxDriver, name, lambda driver, *arguments: done.append(name))
    loop = asyncio.new_event_loop()
    driver = object.__new__(TerminalDriver)
    driver._loop, driver._auto_restart = loop, True
    getattr(driver, name)(signal.SIGTSTP, None)
    assert not done
    loop.run_until_complete(asyncio.sleep(0))
    assert done == [name]
    driver._auto_restart = False
    getattr(driver, name)(signal.SIGTSTP, None)
    assert done == [name, name], "at once while an editor has the terminal"
    loop.close()
