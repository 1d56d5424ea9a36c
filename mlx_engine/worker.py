"""The engine's process: `python -m mlx_engine.worker`, commands on standard input, events on standard output.

The main thread owns every MLX array, from load to exit. A second thread reads commands: it hands loads and
requests over, and applies a cancel or a draft length to the running reply at once.
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

Job = events.Load | events.Count | tuple[events.Generate, ReplyControl]


class Commands:
    """Reads commands; what cannot wait is applied at once, the rest is queued for the main thread."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._latest: ReplyControl | None = None
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    def read_all(self) -> None:
        """Until the pipe ends, which means that the parent is gone or wants no more."""
        try:
            while (command := wire.read(self._pipe, events.Command)) is not None:
                self._take(command)
        except (OSError, wire.WireError) as error:
            print(f"command pipe: {error}", file=sys.stderr)
        if self._latest:
            self._latest.is_cancelled = True
        self.jobs.put(None)

    def _take(self, command: events.Command) -> None:
        match command:
            case events.Load() | events.Count():
                self.jobs.put(command)
            case events.Generate():
                self._latest = ReplyControl(command.draft_length)
                self.jobs.put((command, self._latest))
            case events.Cancel() if self._latest:
                self._latest.is_cancelled = True
            case events.SetDraftLength(draft_length) if self._latest:
                self._latest.draft_length = draft_length


def serve(commands: Commands, emit: Emit) -> None:
    """Work off the jobs until there are no more. Raises SystemExit after an error that it was not made for."""
    engine: Engine | None = None
    while (job := commands.jobs.get()) is not None:
        request_id = job[0].id if isinstance(job, tuple) else None
        try:
            match job:
                case events.Load():
                    engine = None
                    engine = Engine(job, emit)
                case events.Count(id, text):
                    if engine is not None:
                        emit(events.Counted(id, engine.count(text)))
                case (request, control):
                    if engine is None:
                        raise SlipstreamError("No model is loaded. Choose one that loads, then send again.")
                    engine.generate(request, control)
        except SlipstreamError as error:
            emit(events.Failed(request_id, str(error)))
        except BrokenPipeError:
            raise  # the parent is gone
        except Exception as error:
            # Out of memory, most likely. Nobody knows what this process still holds; the next one holds nothing.
            print(trace(error), file=sys.stderr)
            why = f"{type(error).__name__}: {error}"[:300]
            emit(events.Failed(request_id, f"The engine failed ({why}). The next message starts it again."))
            raise SystemExit(wire.STATUS_TOLD) from None


def main() -> None:
    """Serve the parent until it closes the pipe."""
    # The terminal sends ctrl+c to the whole group; only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print; on the real standard output that would be taken for an event.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    commands = Commands(sys.stdin.buffer)
    threading.Thread(target=commands.read_all, name="commands", daemon=True).start()
    try:
        serve(commands, lambda event: wire.write(out, event))
    except BrokenPipeError:
        pass  # the parent is gone: there is nobody left to tell
    finally:
        mx.clear_streams()


if __name__ == "__main__":
    main()
