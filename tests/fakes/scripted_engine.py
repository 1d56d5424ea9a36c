"""An engine's process that says what a file tells it to: the real client and the real wire, without a model.

`python scripted_engine.py SCRIPT`: SCRIPT is JSON. After a request its pieces are sent, one a round.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import msgspec

from mlx_engine.protocol import events, wire


class Script(msgspec.Struct):
    """What happens."""

    pieces: list[str] = []
    """Of every reply."""
    thinking: list[str] = []
    stalls_at: Literal["load", "prefill", "stream", "nowhere"] = "nowhere"
    """Where nothing more comes until the reply is cancelled or the pipe ends."""
    pause_s: float = 0.0
    """Between two rounds."""
    notices: list[str] = []
    failure: str = ""
    """Instead of an end."""
    name: str = "scripted"


class LockedOutput:
    """Standard output, for two threads: one write is one message."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def write(self, message: bytes) -> None:
        with self._lock:
            sys.stdout.buffer.write(message)
            sys.stdout.buffer.flush()

    def flush(self) -> None:
        """Done already."""


def main() -> None:
    """Serve until the pipe ends."""
    script = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Script)
    out = LockedOutput()
    Path(sys.argv[1]).with_name("engine.pid").write_text(str(os.getpid()))
    is_cancelled = threading.Event()
    wanted = threading.Semaphore(0)
    requests: list[events.Generate] = []

    def listen() -> None:
        while (command := wire.read(wire.Descriptor(0), events.Command)) is not None:
            match command:
                case events.Ping():
                    wire.write(out, events.Pong())  # type: ignore[arg-type]
                case events.Cancel():
                    is_cancelled.set()
                case events.Generate():
                    requests.append(command)
                    wanted.release()
        is_over.set()
        is_cancelled.set()
        wanted.release()

    is_over = threading.Event()
    threading.Thread(target=listen, daemon=True).start()
    wire.write(out, events.Loading(script.name))  # type: ignore[arg-type]
    if script.stalls_at == "load":
        is_over.wait()
        return
    for notice in script.notices:
        wire.write(out, events.Notice(notice))  # type: ignore[arg-type]
    wire.write(out, events.Ready(script.name, {"assistant": script.name}, 4, "float32", 32_768, 1, 2, 0.1))  # type: ignore[arg-type]
    while wanted.acquire() and requests:
        is_cancelled.clear()
        answer(out, script, requests.pop(0).id, is_cancelled)


def answer(out: object, script: Script, id: int, is_cancelled: threading.Event) -> None:
    """One reply."""
    wire.write(out, events.Started(id, 100, 0))  # type: ignore[arg-type]
    wire.write(out, events.Prefilled(id, 10, 100))  # type: ignore[arg-type]
    if script.stalls_at == "prefill":
        is_cancelled.wait()
    rounds = [("", text) for text in script.thinking] + [(text, "") for text in script.pieces]
    for text, thinking in rounds:
        if is_cancelled.is_set():
            break
        done = events.Round(
            (1,), 0, 0, False, 100,
            id=id, text=text, thinking=thinking, round_s=0.01, memory_bytes=1, elapsed_s=0.01,
        )  # fmt: skip
        wire.write(out, done)  # type: ignore[arg-type]
        time.sleep(script.pause_s)
    if script.stalls_at == "stream":
        is_cancelled.wait()
    if script.failure:
        wire.write(out, events.Failed(id, script.failure))  # type: ignore[arg-type]
        return
    reason: events.FinishReason = "cancelled" if is_cancelled.is_set() else "stop"
    wire.write(out, events.Finished(id, reason, "", "", 1, 1, 1))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
