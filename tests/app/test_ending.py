"""SIGTERM, SIGHUP and ctrl+c at commands that have an engine: it ends with them, and the exit code says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import msgspec
import pytest

from tests.app.tui.terminal import PROGRAM, slipstream
from tests.app.tui.test_terminal_hanging import let_go_on
from tests.app.tui.test_terminal_signals import kept
from tests.fakes.scripted_engine import Script
from tests.paths import ROOT
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.sampled(2)

WORDS = "These words must not be lost."
LOADING, STREAMING = Script(stalls_at="load"), Script(pieces=[WORDS, " More"], stalls_at="stream")


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    let_go_on(tmp_path)


def has_ended(process_id: int) -> bool:
    """Whether a process that is nobody's child any more ends."""
    give_up_s = monotonic() + PATIENCE_S
    while monotonic() < give_up_s:
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return True
        sleep(0.02)
    return False


@contextmanager
def running(
    home: Path, script: Script, *words: str, stdin: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`slipstream` with a scripted engine, whose process id is in engine.pid."""
    home.mkdir(exist_ok=True)
    (home / "script.json").write_bytes(msgspec.json.encode(script))
    environment = {**os.environ, "SLIPSTREAM_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", str(PROGRAM), str(home / "script.json"), "", *words]
    with subprocess.Popen(
        command, env=environment, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def engine_of(home: Path) -> int:
    """The engine's process id, once it has started."""
    file = home / "engine.pid"
    give_up_s = monotonic() + PATIENCE_S
    while not (file.exists() and file.read_text()):
        assert monotonic() < give_up_s
        sleep(0.02)
    return int(file.read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("script", [LOADING, STREAMING], ids=["loading", "streaming"])
def test_run_ends_by_a_signal_with_its_engine(tmp_path: Path, script: Script, number: signal.Signals) -> None:
    with running(tmp_path, script, "run", "Hi") as process:
        assert process.stdout
        engine = engine_of(tmp_path)
        if script is STREAMING:
            assert process.stdout.read(len(WORDS)) == WORDS.encode()
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + number
    assert errors == b""
    assert has_ended(engine)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["load", "stream", "ready"])
def test_the_plain_chat_ends_by_a_signal_with_its_engine(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    script = {"load": LOADING, "stream": STREAMING, "ready": Script()}[moment]
    with slipstream(tmp_path, script, "--plain") as terminal:
        terminal.until("Loading the model." if moment == "load" else "You: ")
        if moment == "stream":
            terminal.type("A question\n")
            terminal.until(WORDS)
        engine = engine_of(tmp_path)
        terminal.send(number)
        assert terminal.wait() == 128 + number
        assert b"Traceback" not in terminal.written
    assert has_ended(engine)
    if moment == "stream":
        assert kept(tmp_path) == [
            ("user", "A question", "complete"),
            ("assistant", f"{WORDS} More", "interrupted"),
        ]


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_at_run_with_a_large_prompt_while_its_engine_starts(tmp_path: Path, presses: int) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("word " * 100_000)
    home = tmp_path / "home"
    with prompt.open() as file, running(home, LOADING, "run", stdin=file.fileno()) as process:
        engine = engine_of(home)
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert errors == b""
    assert has_ended(engine)


def test_ctrl_c_ends_run_with_an_engine_that_stands_still(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(stalls_at="stream"), "run", "Hi", faults="hasty") as terminal:
        os.kill(engine_of(tmp_path), signal.SIGSTOP)
        terminal.until("press ctrl+c to quit")
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert b"Traceback" not in terminal.written


def test_control_c_restarts_an_engine_that_stands_still_in_the_plain_chat(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["An answer."]), "--plain", faults="hasty") as terminal:
        terminal.until("You: ")
        before = engine_of(tmp_path)
        os.kill(before, signal.SIGSTOP)
        terminal.type("A question\n")
        terminal.until("control c to restart it")
        terminal.type("\x03")
        terminal.until("Restarting the engine.")
        terminal.type("/retry\n")
        terminal.until("An answer.")
        terminal.type("\x04")
        assert terminal.wait() == 0
        assert engine_of(tmp_path) != before
