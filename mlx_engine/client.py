"""A front end's handle on the engine's process. Imports no MLX, so that a front end starts quickly.

The engine is a child process for three reasons. A Metal out-of-memory error aborts its whole process; rendering
would keep the interpreter's lock while rounds wait for it; only ending a process reliably frees unified memory.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mlx_engine.protocol import events, wire
from mlx_engine.protocol.errors import EngineDiedError, RequestError, SlipstreamError
from mlx_engine.protocol.log_file import Log

CLOSE_TIMEOUT_S = 2.0
OUT_OF_MEMORY = (-signal.SIGKILL, -signal.SIGABRT)
"""How a process ends when the system, or Metal, is out of memory."""
OnEvent = Callable[[events.Event], None]


class EngineHandle(Protocol):
    """The engine as front ends see it. Calls return at once; answers arrive as events."""

    @property
    def on_event(self) -> OnEvent | None:
        """Called on a thread of the client's. While it is None, events wait."""
        ...

    @on_event.setter
    def on_event(self, listener: OnEvent | None) -> None: ...

    def start(self) -> None:
        """Start and load. Loading and Ready follow, or Failed without an id."""
        ...

    def generate(self, request: events.Generate) -> None:
        """Ask for a reply; restarts the engine first if it died. All texts must be valid in UTF-8."""
        ...

    def cancel(self) -> None:
        """End the running reply after its current round."""
        ...

    def set_draft_length(self, draft_length: events.DraftSetting) -> None:
        """Change the running reply's draft length from its next round on."""
        ...

    def count(self, id: int, text: str) -> None:
        """Ask how many tokens a text has. Counted follows, unless no pair is loaded."""
        ...

    def switch(self, load: events.Load) -> None:
        """End the engine, then start it with another pair. Blocks until the old one's memory is free.

        An engine that is still loading is interrupted.
        """
        ...

    def close(self) -> None:
        """End the engine; returns when its memory is free."""
        ...


class EngineClient:
    """An `EngineHandle` over a child process."""

    def __init__(self, load: events.Load, log_path: Path) -> None:
        self._listener: OnEvent | None = None
        self._undelivered: list[events.Event] = []
        self._delivery = threading.Lock()
        self._load = load
        self._log_path = log_path
        self._child: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._is_closing = False
        self._is_loaded = False
        self._unanswered: int | None = None
        """The latest request, until it has finished or failed."""
        self._lifecycle = threading.RLock()
        """Taken while a process is started or ended, so that there is never more than one."""

    @property
    def on_event(self) -> OnEvent | None:
        """See EngineHandle."""
        return self._listener

    @on_event.setter
    def on_event(self, listener: OnEvent | None) -> None:
        with self._delivery:
            self._listener = listener
            while listener and self._undelivered:
                listener(self._undelivered.pop(0))

    def start(self) -> None:
        """See EngineHandle. Raises EngineDiedError if no process can be started."""
        log = self._open_log()
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "mlx_engine.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if log else subprocess.DEVNULL,
            )
        except OSError as error:
            raise EngineDiedError(f"The engine's process could not be started: {error}.") from None
        # The child's output passes through `Log`, which escapes control sequences that a library may print.
        logging = log.write_all(child.stderr) if log and child.stderr else None
        self._child, self._is_closing, self._is_loaded = child, False, False
        self._reader = threading.Thread(
            target=self._read_events, args=(child, logging), name="engine-events", daemon=True
        )
        self._reader.start()
        self._send(self._load)

    def generate(self, request: events.Generate) -> None:
        """See EngineHandle."""
        with self._lifecycle:
            if not self.is_alive:
                if self._reader:
                    self._reader.join()  # so that Died is delivered before the new process starts
                self.start()
            self._unanswered = request.id
            self._send(request)

    def cancel(self) -> None:
        """See EngineHandle."""
        self._send(events.Cancel())

    def set_draft_length(self, draft_length: events.DraftSetting) -> None:
        """See EngineHandle."""
        self._send(events.SetDraftLength(draft_length))

    def count(self, id: int, text: str) -> None:
        """See EngineHandle."""
        self._send(events.Count(id, text))

    def switch(self, load: events.Load) -> None:
        """See EngineHandle. Raises EngineDiedError."""
        with self._lifecycle:
            self.close()
            self._load = load
            self.start()

    def close(self) -> None:
        """See EngineHandle."""
        with self._lifecycle:
            self._is_closing = True
            child, self._child = self._child, None
            if child is None:
                return
            _hang_up(child)
            if not self._is_loaded:
                child.kill()  # it would only notice after loading, and has nothing to save
            try:
                child.wait(CLOSE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if self._reader and self._reader is not threading.current_thread():
                self._reader.join()

    @property
    def is_alive(self) -> bool:
        """The engine's process is running."""
        return self._child is not None and self._child.poll() is None

    @property
    def process_id(self) -> int | None:
        """Of the engine, for measuring its memory."""
        return self._child.pid if self._child else None

    def _open_log(self) -> Log | None:
        """None if it cannot be written; a Notice says so, and the engine runs without it."""
        try:
            return Log(self._log_path)
        except OSError as error:
            why = f"{self._log_path} cannot be written ({error.strerror}), so the engine runs without a log."
            self._deliver(events.Notice(why))
            return None

    def _send(self, command: events.Command) -> None:
        if self._child is None or self._child.stdin is None:
            return
        try:
            wire.write(self._child.stdin, command)
        except UnicodeEncodeError:
            raise  # also a ValueError, but nothing was sent
        except (OSError, ValueError):
            pass  # the child is gone; the reader thread reports it

    def _read_events(self, child: subprocess.Popen[bytes], logging: threading.Thread | None) -> None:
        assert child.stdout is not None
        why = ""
        try:
            while (event := wire.read(child.stdout, events.Event)) is not None:
                self._note(event)
                if not self._is_closing:
                    self._deliver(event)
        except wire.WireError as error:
            why = f" after sending {error}"
            child.kill()
        status = child.wait()
        if logging:
            logging.join(CLOSE_TIMEOUT_S)  # the message below may point to the log, so let it be complete
        child.stdout.close()
        _hang_up(child)
        is_reported = status == wire.STATUS_REPORTED and self._unanswered is None
        if not self._is_closing and not is_reported:
            advice = _advice(status, self._log_path if logging else None)
            self._deliver(events.Died(f"The engine ended {_how(status)}{why}. {advice}"))

    def _note(self, event: events.Event) -> None:
        match event:
            case events.Ready():
                self._is_loaded = True
            case events.Finished(id=id) | events.Failed(id=id) if id == self._unanswered:
                self._unanswered = None

    def _deliver(self, event: events.Event) -> None:
        with self._delivery:
            if self._listener:
                self._listener(event)
            else:
                self._undelivered.append(event)


def raise_if_failed(event: events.Event) -> None:
    """Raise the error that an event reports: RequestError for a failed request, SlipstreamError for a failed load,
    EngineDiedError for a process that died."""
    match event:
        case events.Failed(id=None, message=message):
            raise SlipstreamError(message)
        case events.Failed(message=message):
            raise RequestError(message)
        case events.Died(message=message):
            raise EngineDiedError(message)


def _hang_up(child: subprocess.Popen[bytes]) -> None:
    """Close the command pipe, which makes the child end."""
    assert child.stdin is not None
    try:
        child.stdin.close()
    except OSError:
        pass  # the child is gone already, before it read a command


def _how(status: int) -> str:
    if status < 0:
        return f"by signal {signal.Signals(-status).name}"
    return f"with exit status {status}"


def _advice(status: int, log_path: Path | None) -> str:
    if status in OUT_OF_MEMORY:
        return "The machine may have been out of memory: try a smaller variant. Your next message restarts it."
    return f"Your next message restarts it{f'; see {log_path} for details' if log_path else ''}."
