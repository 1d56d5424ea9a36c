"""The engine's process: `python -m mlx_engine.worker`, commands on standard input, events on standard output.

The main thread owns every MLX array, from load to exit. A second thread reads commands: it queues loads and
requests for the main thread, and applies a cancel or a new draft length to the running reply at once.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import IO

import mlx.core as mx

from mlx_engine.engine import Emit, Engine
from mlx_engine.protocol import events, wire
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.log_file import trace
from mlx_engine.speculation.steering import ReplyControl

Task = events.Load | events.Count | tuple[events.Generate, ReplyControl]


class Commands:
    """Reads commands: applies the urgent ones at once and queues the others for the main thread."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._latest: ReplyControl | None = None
        self.tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        """Ends with None."""

    def read_all(self) -> None:
        """Read until the pipe is closed: the parent is gone or wants the engine to end."""
        try:
            while (command := wire.read(self._pipe, events.Command)) is not None:
                self._take(command)
        except (OSError, wire.WireError) as error:
            print(f"command pipe: {error}", file=sys.stderr)
        if self._latest:
            self._latest.is_cancelled = True
        self.tasks.put(None)

    def _take(self, command: events.Command) -> None:
        match command:
            case events.Load() | events.Count():
                self.tasks.put(command)
            case events.Generate():
                self._latest = ReplyControl(command.draft_length)
                self.tasks.put((command, self._latest))
            case events.Cancel() if self._latest:
                self._latest.is_cancelled = True
            case events.SetDraftLength(draft_length) if self._latest:
                self._latest.draft_length = draft_length


def serve(commands: Commands, emit: Emit) -> None:
    """Do the queued tasks until they end. Raises SystemExit after an unexpected error."""
    engine: Engine | None = None
    while (task := commands.tasks.get()) is not None:
        request_id = task[0].id if isinstance(task, tuple) else None
        try:
            match task:
                case events.Load():
                    engine = None
                    engine = Engine(task, emit)
                case events.Count(id, text):
                    if engine is not None:
                        emit(events.Counted(id, engine.count(text)))
                case (request, control):
                    if engine is None:
                        raise SlipstreamError("No model is loaded. Choose a model, then send the message again.")
                    engine.generate(request, control)
        except SlipstreamError as error:
            emit(events.Failed(request_id, str(error)))
        except BrokenPipeError:
            raise  # the parent is gone
        except Exception as error:
            # Most likely out of memory. What this process still has allocated is unknown; a new one starts clean.
            print(trace(error), file=sys.stderr)
            why = f"{type(error).__name__}: {error}"[:300]
            emit(events.Failed(request_id, f"The engine failed ({why}). Your next message restarts it."))
            raise SystemExit(wire.STATUS_REPORTED) from None


def main() -> None:
    """Serve the parent until it closes the pipe."""
    # The terminal sends ctrl+c to the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries may print; on the real standard output that would be read as an event.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    commands = Commands(sys.stdin.buffer)
    threading.Thread(target=commands.read_all, name="commands", daemon=True).start()
    try:
        serve(commands, lambda event: wire.write(out, event))
    except BrokenPipeError:
        pass  # the parent is gone
    finally:
        mx.clear_streams()


if __name__ == "__main__":
    main()
