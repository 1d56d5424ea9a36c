"""The engine's process: `python -m mlx_engine.worker`, commands on standard input, events on standard output.

The main thread owns every MLX array, from load to exit. A second thread reads commands: it queues loads and
requests for the main thread, and applies a cancel or a new draft length to the running reply at once. It also
answers pings, and ends the process when the parent is gone, whatever the main thread does. A third one checks
requests, which takes neither arrays nor the main thread's time.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import IO, NoReturn

from mlx_engine.engine import Emit, Engine
from mlx_engine.loading.on_device import memory_bytes, working_set_bytes
from mlx_engine.protocol import events, wire
from mlx_engine.protocol.errors import ContextOverflowError, RequestError, SlipstreamError
from mlx_engine.protocol.log_file import trace
from mlx_engine.protocol.out_of_memory import is_out_of_memory, memory_message
from mlx_engine.request_check import RequestCheck
from mlx_engine.speculation.steering import ReplyControl

STATUS_OK, STATUS_FAILED = 0, 1
LEAVE_S = 2.0
"""How long the running task may still take once the parent is gone or has closed the pipe."""
MAX_REASON_CHARACTERS = 300
NOT_LOADED = "No model is loaded. Choose a model, then send the message again."

Task = events.Load | events.Count | tuple[events.Generate | events.Measure, ReplyControl]


class EventPipe:
    """Sends events to the parent, from any thread."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, event: events.Event) -> None:
        """Raises OSError if the parent is gone."""
        with self._lock:
            wire.write(self._pipe, event)

    def finish(self) -> None:
        """Let nothing more through, and no event in part."""
        self._lock.acquire(timeout=LEAVE_S)


class Checks:
    """Checks requests on a thread of its own, one after the other, once the pair is loaded."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._requests: queue.SimpleQueue[events.CheckRequest | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._loads = 0
        """Loads that have begun and not ended."""
        self._check: RequestCheck | None = None
        """Of the loaded pair. It keeps no array alive."""

    def add(self, command: events.CheckRequest) -> None:
        """Checked or Failed follows."""
        self._requests.put(command)

    def begin_load(self) -> None:
        """What is asked from now on is for the pair that is being loaded."""
        with self._changed:
            self._loads += 1

    def end_load(self, check: RequestCheck | None) -> None:
        """check: None if no pair could be loaded."""
        with self._changed:
            self._loads, self._check = self._loads - 1, check
            self._changed.notify()

    def end(self) -> None:
        """Answer no more."""
        self._requests.put(None)

    def answer_all(self) -> None:
        """Answer until `end`. Raises OSError if the parent is gone."""
        while (command := self._requests.get()) is not None:
            with self._changed:
                self._changed.wait_for(lambda: not self._loads)
                check = self._check
            self._emit(self._answer(command.request, check))

    def _answer(self, request: events.Generate, check: RequestCheck | None) -> events.Event:
        try:
            if check is None:
                raise SlipstreamError(NOT_LOADED)
            return check.checked(request)
        except SlipstreamError as error:
            return failed(request.id, error)
        except BaseException as error:  # a panic of the tokenizers library is no Exception
            print(trace(error), file=sys.stderr)
            return events.Failed(request.id, f"The request could not be checked ({type(error).__name__}).")


class Commands:
    """Reads commands: applies the urgent ones at once and queues the others for the other threads."""

    def __init__(self, pipe: wire.Readable, emit: Emit) -> None:
        self._pipe = pipe
        self._emit = emit
        self._latest: ReplyControl | None = None
        self.checks = Checks(emit)
        self.tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        """Ends with None."""

    def read_all(self) -> None:
        """Read until the pipe is closed: the parent is gone or wants the engine to end."""
        try:
            while (command := wire.read(self._pipe, events.Command)) is not None:
                self._take(command)
        except (OSError, wire.WireError) as error:
            print(f"command pipe: {error}", file=sys.stderr)
        except Exception as error:  # such as no memory for a long command; without this thread, nothing works
            print(trace(error), file=sys.stderr)
        if self._latest:
            self._latest.is_cancelled = True
        self.tasks.put(None)
        self.checks.end()

    def _take(self, command: events.Command) -> None:
        match command:
            case events.Ping():
                self._emit(events.Pong())
            case events.Load():
                self.checks.begin_load()
                self.tasks.put(command)
            case events.Count():
                self.tasks.put(command)
            case events.CheckRequest():
                self.checks.add(command)
            case events.Generate():
                self._latest = ReplyControl(command.draft_length)
                self.tasks.put((command, self._latest))
            case events.Measure():
                self._latest = ReplyControl(0)
                self.tasks.put((command, self._latest))
            case events.Cancel() if self._latest:
                self._latest.is_cancelled = True
            case events.SetDraftLength(draft_length) if self._latest:
                self._latest.draft_length = draft_length


def serve(commands: Commands, emit: Emit) -> int:
    """Do the queued tasks until they end. Returns the exit status. Raises OSError if the parent is gone."""
    engine: Engine | None = None
    load = events.Load("")
    while (task := commands.tasks.get()) is not None:
        request_id = task[0].id if isinstance(task, tuple) else None
        try:
            match task:
                case events.Load():
                    if engine is not None:
                        engine.close()
                    engine, load = None, task
                    try:
                        engine = Engine(task, emit)
                    finally:
                        commands.checks.end_load(engine.check if engine else None)
                case events.Count(id, text):
                    if engine is not None:
                        emit(events.Counted(id, engine.count(text)))
                case (request, control):
                    if engine is None:
                        raise SlipstreamError(NOT_LOADED)
                    if isinstance(request, events.Measure):
                        emit(events.Measured(request.id, engine.measure(control)))
                    else:
                        engine.generate(request, control)
        except SlipstreamError as error:
            emit(failed(request_id, error))
        except BrokenPipeError:
            raise  # the parent is gone
        except BaseException as error:  # a panic of the tokenizers library is no Exception
            # What this process still has allocated is unknown; a new one starts clean.
            print(trace(error), file=sys.stderr)
            reason = f"{type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS]
            message = f"The engine failed ({reason}). Your next message restarts it."
            if is_out_of_memory(error):
                message = memory_message(
                    error, load, memory_bytes(), working_set_bytes(), is_reply=request_id is not None
                )
            if isinstance(task, events.Count):
                emit(events.LastWords(reason))
            else:
                emit(events.Failed(request_id, message))
            return wire.STATUS_REPORTED
    if engine is not None:
        engine.close()
    return STATUS_OK


def failed(request_id: int | None, error: SlipstreamError) -> events.Failed:
    """The event for an error of a request, or of the load if the id is None."""
    if not isinstance(error, RequestError):
        return events.Failed(request_id, str(error))
    reason: events.FailureReason = "too_long" if isinstance(error, ContextOverflowError) else "refused"
    return events.Failed(request_id, str(error), reason, error.about)


def _read_then_leave(commands: Commands, pipe: EventPipe) -> None:
    """Read all commands. Then the main thread ends the process; if it does not, because it is busy, do it here."""
    commands.read_all()
    time.sleep(LEAVE_S)
    _leave(pipe, STATUS_FAILED)


def _answer_checks(checks: Checks) -> None:
    with suppress(OSError):  # the parent is gone, which the other threads notice as well
        checks.answer_all()


def _leave(pipe: EventPipe, status: int) -> NoReturn:
    """The only way out. Without the interpreter's own end, which threads that read or compute would abort."""
    pipe.finish()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


def main() -> NoReturn:
    """Serve the parent until it closes the pipe."""
    # The terminal sends ctrl+c to the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries may print; on the real standard output that would be read as an event.
    pipe = EventPipe(os.fdopen(os.dup(sys.stdout.fileno()), "wb"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    commands = Commands(wire.Descriptor(sys.stdin.fileno()), pipe.send)
    threading.Thread(target=_read_then_leave, args=(commands, pipe), name="commands", daemon=True).start()
    threading.Thread(target=_answer_checks, args=(commands.checks,), name="checks", daemon=True).start()
    status = STATUS_FAILED
    try:
        status = serve(commands, pipe.send)
    except OSError:
        status = STATUS_OK  # the parent is gone
    except BaseException as error:
        print(trace(error), file=sys.stderr)
    _leave(pipe, status)


if __name__ == "__main__":
    main()
