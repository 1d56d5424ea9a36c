"""An engine that stands still, fails or loses its parent: nobody waits for it, and what is told of it is true."""

from __future__ import annotations

import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlx_engine import client
from mlx_engine.client import EngineClient
from mlx_engine.protocol import events, wire
from mlx_engine.protocol.events import Generate, Load, Message
from mlx_engine.protocol.outbox import MAX_MESSAGES, Outbox, OutboxFullError
from mlx_engine.protocol.pulse import Alarm, Patience, Pulse
from tests.paths import ROOT
from tests.patience import PATIENCE_S

READY = 'events.Ready("t", {}, 4, "float32", 512, 0, None, 0.0)'
HASTY = Patience(tick_s=0.02, start_ticks=10_000, silent_ticks=3, stop_ticks=10)
WORKER = f"""
import os, sys, time
from mlx_engine import worker
from mlx_engine.protocol import events

class Engine:
    "A stand-in for the engine inside the real worker."
    check = None
    def __init__(self, load, emit):
        self.emit = emit
        emit({READY})
    def count(self, text):
        exec(text, globals())
        return 1
    def generate(self, request, control):
        exec(request.messages[-1].text, globals() | {{"emit": self.emit, "control": control}})
        self.emit(events.Finished(request.id, "stop", "", "", 1, 1, 1))
    def close(self):
        pass

class Panic(BaseException):
    "As the tokenizers library has them."

worker.Engine = Engine
worker.LEAVE_S = 0.1
worker.main()
"""
HUGE = "# " + "x" * (1 << 20)
"""Far more than a pipe takes."""


class Heard:
    """What a client has told."""

    def __init__(self, engine: EngineClient) -> None:
        self._events: queue.SimpleQueue[events.Event] = queue.SimpleQueue()
        engine.on_event = self._events.put

    def next(self) -> events.Event:
        return self._events.get(timeout=PATIENCE_S)

    def until(self, *kinds: type) -> events.Event:
        while not isinstance(event := self.next(), kinds):
            pass
        return event

    def death(self) -> str:
        died = self.until(events.Died)
        assert isinstance(died, events.Died)
        return died.message


Start = Callable[..., tuple[EngineClient, Heard]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a client whose child is the real worker with a stand-in for the engine, or some other program."""
    popen = subprocess.Popen
    started: list[EngineClient] = []

    def start(patience: Patience | None = None, program: str = WORKER) -> tuple[EngineClient, Heard]:
        monkeypatch.setattr(
            subprocess, "Popen", lambda command, **pipes: popen([sys.executable, "-c", program], **pipes)
        )
        engine = EngineClient(Load("nowhere"), tmp_path / "engine.log", patience)
        started.append(engine)
        engine.start()
        return engine, Heard(engine)

    yield start
    for engine in started:
        engine.close()


def ask(code: str, id: int = 1) -> Generate:
    """A request that makes the stand-in run code."""
    return Generate(id, (Message("user", code),))


def at_once(call: Callable[[], object]) -> None:
    """Fails if a call waits for the engine, which stands still."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE_S / 4)
    assert not thread.is_alive()


def test_nobody_waits_for_an_engine_that_is_stopped(start: Start) -> None:
    engine, heard = start(HASTY)
    heard.until(events.Ready)
    assert engine.process_id
    os.kill(engine.process_id, signal.SIGSTOP)
    at_once(lambda: engine.count(1, HUGE))
    at_once(lambda: engine.generate(ask(HUGE)))
    at_once(engine.cancel)
    at_once(lambda: engine.set_draft_length(3))
    silent = heard.until(events.Silent)
    assert isinstance(silent, events.Silent)
    assert silent.message.startswith("The engine has not answered for ")
    os.kill(engine.process_id, signal.SIGCONT)
    heard.until(events.Answering)
    heard.until(events.Finished)


def test_one_that_stands_still_is_ended_at_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CLOSE_TIMEOUT_S", 10 * PATIENCE_S)
    engine, heard = start(HASTY)
    heard.until(events.Ready)
    child = engine._child
    assert child
    child.send_signal(signal.SIGSTOP)
    engine.generate(ask("small"))
    heard.until(events.Silent)
    at_once(engine.close)
    assert child.returncode == -signal.SIGKILL


def test_what_fills_the_pipe_does_not_keep_it_from_ending(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CLOSE_TIMEOUT_S", 0.05)
    engine, heard = start()
    heard.until(events.Ready)
    assert engine.process_id
    os.kill(engine.process_id, signal.SIGSTOP)
    engine.generate(ask(HUGE))
    at_once(engine.close)


def test_nobody_waits_while_one_that_stands_still_is_replaced(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CLOSE_TIMEOUT_S", PATIENCE_S)
    engine, heard = start()
    heard.until(events.Ready)
    old = engine._child
    assert old
    old.send_signal(signal.SIGSTOP)
    switching = threading.Thread(target=engine.switch, args=(Load("another"),))
    switching.start()
    while not engine._is_closing:
        os.sched_yield()
    at_once(lambda: engine.generate(ask("pass", 7)))
    assert old.poll() is None
    old.send_signal(signal.SIGCONT)
    finished = heard.until(events.Finished)
    assert isinstance(finished, events.Finished)
    assert finished.id == 7
    switching.join(PATIENCE_S)


def test_another_pair_that_cannot_be_started_is_told(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no process left")

    engine, heard = start()
    heard.until(events.Ready)
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", fail)
        engine.switch(Load("another"))
    assert "no process left" in heard.death()
    engine.generate(ask("pass"))
    heard.until(events.Finished)


def test_a_long_call_is_no_silence_but_a_cancel_without_end_is_told(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    signs: queue.SimpleQueue[None] = queue.SimpleQueue()
    sign = Pulse.sign

    def counted(pulse: Pulse, *, is_stopping: bool) -> bool:
        signs.put(None)
        return sign(pulse, is_stopping=is_stopping)

    monkeypatch.setattr(Pulse, "sign", counted)
    engine, heard = start(Patience(tick_s=0.02, start_ticks=10_000, silent_ticks=10_000, stop_ticks=10))
    engine.generate(ask("emit(events.Notice('busy'))\ntime.sleep(600)"))
    heard.until(events.Notice)
    for _ in range(5):
        signs.get(timeout=PATIENCE_S)  # from the thread that reads
    engine.cancel()
    silent = heard.next()
    assert isinstance(silent, events.Silent)
    assert silent.message.startswith("The engine has not stopped for ")


def test_silence_counts_ticks_while_something_is_awaited() -> None:
    pulse = Pulse(Patience(1.0, start_ticks=3, silent_ticks=2, stop_ticks=4))

    def tick(is_awaited: bool = True, is_stopping: bool = False) -> bool:
        return pulse.tick(is_awaited=is_awaited, is_stopping=is_stopping)

    assert [tick(), tick(), pulse.alarm] == [False, False, None]
    assert (tick(), pulse.alarm) == (True, Alarm.NO_START)
    assert pulse.sign(is_stopping=False)
    assert (tick(), pulse.needs_ping(), pulse.needs_ping()) == (False, True, False)
    assert (tick(), pulse.alarm) == (True, Alarm.NO_SIGN)
    assert (tick(is_awaited=False), pulse.alarm) == (True, None)
    for _ in range(3):
        assert not tick(is_stopping=True)
        assert not pulse.sign(is_stopping=True)
    assert (tick(is_stopping=True), pulse.alarm) == (True, Alarm.NO_STOP)
    assert not pulse.sign(is_stopping=True)
    assert pulse.sign(is_stopping=False)


def test_an_outbox_is_bounded() -> None:
    reader, writer = os.pipe()
    outbox = Outbox(os.fdopen(writer, "wb", buffering=0))
    outbox.put(b"x" * (1 << 20))
    for _ in range(MAX_MESSAGES - 1):
        outbox.put(b"y")
    with pytest.raises(OutboxFullError):
        outbox.put(b"z")
    outbox.close()
    outbox.join()
    os.close(reader)


@pytest.mark.parametrize(
    "code", ["raise ValueError('a reason')", "raise Panic('a reason')", "raise MemoryError('a reason')"]
)
def test_an_error_nobody_expected_is_told_once_and_nothing_else(start: Start, code: str) -> None:
    engine, heard = start()
    engine.generate(ask(code))
    failed = heard.until(events.Failed, events.Died)
    assert isinstance(failed, events.Failed)
    assert "a reason" in failed.message
    assert engine._reader
    engine._reader.join(PATIENCE_S)
    assert heard._events.empty(), "it was reported, so its end is no news"
    assert engine._child
    assert engine._child.returncode == wire.STATUS_REPORTED
    engine.generate(ask("pass", 2))
    finished = heard.until(events.Finished)
    assert isinstance(finished, events.Finished)
    assert finished.id == 2


def test_a_panic_while_counting_is_told_as_the_engines_end(start: Start) -> None:
    engine, heard = start()
    heard.until(events.Ready)
    engine.count(1, "raise Panic('a reason')")
    said = heard.death()
    assert said.startswith("The engine failed (Panic: a reason). Your next message restarts it")


def test_what_a_library_prints_when_it_aborts_is_told(start: Start) -> None:
    engine, heard = start()
    words = "terminating: no such kernel\\n\\nnote: run with more\\n"
    engine.generate(ask(f"os.write(2, b'{words}'); os.abort()"))
    said = heard.death()
    assert said.startswith("The engine ended by signal SIGABRT (terminating: no such kernel). Your next message")
    assert "memory" not in said


def test_garbage_on_the_pipe_is_told_as_what_it_is(start: Start) -> None:
    program = f"import os, sys, time; os.write(1, b'{'x' * 100}'); time.sleep(600)"
    _, heard = start(program=program)
    said = heard.death()
    assert said.startswith("The engine sent a message that is truncated or too long, and was ended.")
    assert "memory" not in said
    assert "SIGKILL" not in said


@pytest.mark.skipif(sys.platform == "darwin", reason="it has no real-time signals")
def test_a_signal_without_a_name_is_told_as_a_number(start: Start) -> None:
    engine, heard = start()
    heard.until(events.Ready)
    os.kill(engine.process_id or 0, 35)
    assert heard.death().startswith("The engine ended by signal 35. ")


PARENT = """
import subprocess, sys, time
from mlx_engine.protocol import wire, events
program, code, held = sys.argv[1:]
child = subprocess.Popen(
    [sys.executable, "-c", program],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=(int(held),),
)
wire.write(child.stdin, events.Load("nowhere"))
wire.write(child.stdin, events.Generate(1, (events.Message("user", code),)))
while not isinstance(wire.read(child.stdout, events.Event), events.Notice):
    pass
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("busy", ["time.sleep(600)", "while True: pass"])
def test_an_engine_does_not_outlive_its_parent(busy: str) -> None:
    code = f"emit(events.Notice('busy'))\n{busy}"
    watched, held = os.pipe()  # the other end is closed once both processes have ended
    command = [sys.executable, "-c", PARENT, WORKER, code, str(held)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, pass_fds=(held,)) as parent:
        os.close(held)
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
    has_ended = bool(select.select([watched], [], [], PATIENCE_S)[0])
    os.close(watched)
    if not has_ended:
        os.kill(child, signal.SIGKILL)
    assert has_ended, "it lives on"
