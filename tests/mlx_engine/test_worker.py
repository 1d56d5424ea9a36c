"""The engine's process after an error that nobody expected."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from mlx_engine import worker
from mlx_engine.protocol import events, wire
from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import Generate, Load, Message
from mlx_engine.protocol.micro_figures import MicroFigures
from mlx_engine.speculation.steering import ReplyControl
from tests.mlx_engine.rig import only

HELLO = (Message("user", "Hello there, how are you?"),)
CANARY = "what nobody else may read"


class FailingEngine:
    """Loads, and then fails at whatever it is asked."""

    check = None

    def __init__(self, load: Load, emit: Any) -> None:
        if load.target == "huge":
            raise MemoryError("no room")

    def generate(self, request: Generate, control: ReplyControl) -> None:
        try:
            raise ValueError(f"cannot read {CANARY}")
        except ValueError as error:
            raise RuntimeError(f"[metal::malloc] Attempting to allocate 99 bytes for {CANARY}") from error


@pytest.mark.parametrize(("target", "words"), [("fits", "metal::malloc"), ("huge", "no room")])
def test_an_error_nobody_expected_is_said_and_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], target: str, words: str
) -> None:
    monkeypatch.setattr(worker, "Engine", FailingEngine)
    emitted: list[events.Event] = []
    commands = worker.Commands(None, emitted.append)  # type: ignore[arg-type]
    commands.tasks = queue.SimpleQueue()
    commands.tasks.put(Load(target))
    commands.tasks.put((Generate(7, HELLO), ReplyControl(0)))
    assert worker.serve(commands, emitted.append) == wire.STATUS_REPORTED
    (failed,) = only(events.Failed, emitted)
    assert words in failed.message
    assert failed.id == (7 if target == "fits" else None)
    logged = capfd.readouterr().err
    assert "Traceback" in logged
    assert CANARY not in logged


class MeasuringEngine:
    """Measures until it is stopped."""

    check = None

    def __init__(self, load: Load, emit: Any) -> None:
        pass

    def measure(self, control: ReplyControl) -> MicroFigures:
        if control.is_cancelled:
            raise RequestError("stopped")
        return MicroFigures(verify_s={1: 0.5})

    def close(self) -> None:
        pass


class Pipe:
    """A pipe with these commands in it."""

    def __init__(self, *commands: events.Command) -> None:
        self._data = b"".join(map(wire.encode, commands))

    def read(self, size: int, /) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_measurements_are_answered_or_cancelled(monkeypatch: pytest.MonkeyPatch, is_cancelled: bool) -> None:
    monkeypatch.setattr(worker, "Engine", MeasuringEngine)
    emitted: list[events.Event] = []
    sent: list[events.Command] = [
        Load("fits"),
        events.Measure(-1),
        *([events.Cancel()] if is_cancelled else []),
        events.Measure(-2),
    ]
    commands = worker.Commands(Pipe(*sent), emitted.append)
    monkeypatch.setattr(commands, "tasks", queue.SimpleQueue())
    commands.read_all()
    # The end of the pipe stops what was asked for last.
    assert worker.serve(commands, emitted.append) == worker.STATUS_OK
    first = (
        events.Failed(-1, "stopped", "refused")
        if is_cancelled
        else events.Measured(-1, MicroFigures(verify_s={1: 0.5}))
    )
    assert emitted == [first, events.Failed(-2, "stopped", "refused")]
