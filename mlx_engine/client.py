"""A front end's handle on the engine's process. Imports no MLX, so that a front end starts quickly.

The engine is a child process for three reasons. A Metal out-of-memory error aborts its whole process; rendering
would keep the interpreter's lock while rounds wait for it; only ending a process reliably frees unified memory.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from mlx_engine.protocol import events, wire
from mlx_engine.protocol.delivery import Delivery, OnEvent
from mlx_engine.protocol.errors import EngineDiedError, RequestError, SlipstreamError, how_ended
from mlx_engine.protocol.log_file import Log, Tail
from mlx_engine.protocol.outbox import Outbox, OutboxFullError
from mlx_engine.protocol.pulse import Alarm, Patience, Pulse

CLOSE_TIMEOUT_S = 2.0
WIRED_CLOSE_TIMEOUT_S = 20.0
"""Wired memory of a process that SIGKILL ended may stay lost until the machine restarts. So one with `--wire`
gets time to leave by itself, which takes two seconds unless it hangs in the system."""
OUT_OF_MEMORY = (-signal.SIGKILL, -signal.SIGABRT)
"""How a process ends when the system, or Metal, is out of memory."""
FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT)
"""How a process ends that somebody else ended: what it printed before says nothing about it."""
ABOUT_MEMORY = re.compile("memory|alloc", re.IGNORECASE)


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
        """Ask for a reply; restarts the engine first if it died. All texts must be valid in UTF-8.

        Silent follows if the engine then gives no sign of life.
        """
        ...

    def check(self, request: events.Generate) -> None:
        """Ask whether a request can be answered, and how long its prompt is; restarts the engine first if it died.

        Checked or Failed follows, also while a reply is running.
        """
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

    def measure(self, id: int) -> None:
        """Ask for measurements of the loaded pair. Measured follows, or Failed; cancel ends them."""
        ...

    def switch(self, load: events.Load) -> None:
        """End the engine, then start it with another pair. Blocks until the old one's memory is free.

        An engine that is still loading is interrupted. A request made meanwhile goes to the new one. If that
        cannot be started, Died follows.
        """
        ...

    def close(self) -> None:
        """End the engine; returns when its memory is free."""
        ...


class EngineClient:
    """An `EngineHandle` over a child process."""

    def __init__(self, load: events.Load, log_path: Path, patience: Patience | None = None) -> None:
        """patience: with an engine that gives no sign of life."""
        self._delivery = Delivery()
        self._load = load
        self._log_path = log_path
        self._child: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._outbox: Outbox | None = None
        self._patience = patience or Patience()
        self._pulse = Pulse(self._patience)
        self._is_closing = False
        self._is_loading = False
        self._is_loaded = False
        self._unanswered: int | None = None
        """The latest request, until it has finished or failed."""
        self._is_cancelled = False
        """Whether that request is to end."""
        self._uncounted: set[int] = set()
        """Texts that are being counted, and requests that are being checked."""
        self._last_words = ""
        """Why the process is about to end, as far as it said so."""
        self._tail = Tail()
        """What it printed last."""
        self._lifecycle = threading.RLock()
        """Taken while a process is started or ended, so that there is never more than one."""
        self._switching = threading.Lock()
        """For the next two. Never taken for long: requests come from threads that must not wait."""
        self._switches = 0
        """How many threads are switching the pair."""
        self._waiting_request: tuple[int, bytes] | None = None
        """Made while the pair was being switched, which takes until the old one's memory is free."""

    @property
    def on_event(self) -> OnEvent | None:
        """See EngineHandle."""
        return self._delivery.listener

    @on_event.setter
    def on_event(self, listener: OnEvent | None) -> None:
        self._delivery.listener = listener

    def start(self) -> None:
        """See EngineHandle. Raises EngineDiedError if no process can be started."""
        load = wire.encode(self._load)
        log = self._open_log()
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "mlx_engine.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if log else subprocess.DEVNULL,
                bufsize=0,
            )
        except OSError as error:
            raise EngineDiedError(f"The engine's process could not be started: {error}.") from None
        assert child.stdin is not None
        self._tail = Tail()
        # The child's output passes through `Log`, which escapes control sequences that a library may print.
        logging = log.write_all(child.stderr, self._tail) if log and child.stderr else None
        self._child, self._outbox, self._pulse = child, Outbox(child.stdin), Pulse(self._patience)
        self._is_closing, self._is_loading, self._is_loaded = False, True, False
        self._unanswered, self._is_cancelled, self._last_words = None, False, ""
        self._uncounted.clear()
        has_ended = threading.Event()
        self._reader = _thread("engine-events", self._read_events, child, self._outbox, logging, has_ended)
        _thread("engine-pulse", self._watch, self._outbox, self._pulse, has_ended)
        self._send(load)

    def generate(self, request: events.Generate) -> None:
        """See EngineHandle. Raises EngineDiedError if no process can be started, and OutboxFullError."""
        message = wire.encode(request)
        with self._switching:
            if self._switches:
                self._waiting_request = request.id, message
                return
        self._request(request.id, message)

    def _request(self, id: int, message: bytes) -> None:
        with self._lifecycle:
            self._restart_if_dead()
            self._unanswered, self._is_cancelled = id, False
            self._send(message)

    def check(self, request: events.Generate) -> None:
        """See EngineHandle. Raises EngineDiedError if no process can be started, and OutboxFullError."""
        with self._lifecycle:
            self._restart_if_dead()
            self._uncounted.add(request.id)
            self._send(wire.encode(events.CheckRequest(request)))

    def _restart_if_dead(self) -> None:
        if not self.is_alive:
            if self._reader:
                self._reader.join()  # so that Died is delivered before the new process starts
            self.start()

    def cancel(self) -> None:
        """See EngineHandle."""
        self._waiting_request = None
        self._is_cancelled = self._unanswered is not None
        self._send_if_possible(events.Cancel())

    def set_draft_length(self, draft_length: events.DraftSetting) -> None:
        """See EngineHandle."""
        self._send_if_possible(events.SetDraftLength(draft_length))

    def count(self, id: int, text: str) -> None:
        """See EngineHandle."""
        if self._is_loaded:
            self._uncounted.add(id)
            self._send_if_possible(events.Count(id, text))

    def measure(self, id: int) -> None:
        """See EngineHandle."""
        self._send_if_possible(events.Measure(id))

    def switch(self, load: events.Load) -> None:
        """See EngineHandle."""
        with self._switching:
            self._switches += 1
        try:
            with self._lifecycle:
                self.close()
                self._load = load
                self.start()
        except EngineDiedError as error:
            self._delivery.deliver(events.Died(str(error)))
        finally:
            with self._switching:
                self._switches -= 1
                waiting = None if self._switches else self._waiting_request
        if waiting and self._child:
            self._waiting_request = None
            self._request(*waiting)

    def close(self) -> None:
        """See EngineHandle."""
        with self._lifecycle:
            self._is_closing = True
            child, self._child = self._child, None
            if child is None:
                return
            if self._outbox:
                self._outbox.close()
            is_wired = self._load.is_wired
            if (not self._is_loaded or self._pulse.alarm) and not is_wired:
                child.kill()  # it would only notice after loading, or never, and has nothing to save
            try:
                child.wait(WIRED_CLOSE_TIMEOUT_S if is_wired else CLOSE_TIMEOUT_S)
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
            self._delivery.deliver(events.Notice(why))
            return None

    def _send(self, message: bytes) -> None:
        """Raises OutboxFullError."""
        if self._outbox is not None:
            self._outbox.put(message)

    def _send_if_possible(self, command: events.Command) -> None:
        """Nothing depends on it, so it is dropped if the engine does not read."""
        with suppress(OutboxFullError):
            self._send(wire.encode(command))

    def _read_events(
        self,
        child: subprocess.Popen[bytes],
        outbox: Outbox,
        logging: threading.Thread | None,
        has_ended: threading.Event,
    ) -> None:
        assert child.stdout is not None
        pipe = wire.Descriptor(child.stdout.fileno())
        garbage = ""
        try:
            while (event := wire.read(pipe, events.Event)) is not None:
                self._note(event)
                if not (self._is_closing or isinstance(event, events.Pong | events.LastWords)):
                    self._delivery.deliver(event)
        except wire.WireError as error:
            garbage = str(error)
            child.kill()
        status = child.wait()
        has_ended.set()
        if logging:
            logging.join(CLOSE_TIMEOUT_S)  # the message below may quote the log, so let it be complete
        child.stdout.close()
        outbox.close()
        outbox.join()
        is_reported = status == wire.STATUS_REPORTED and self._unanswered is None and not self._last_words
        if not self._is_closing and not is_reported:
            obituary = self._obituary(status, garbage, self._log_path if logging else None)
            self._delivery.deliver(events.Died(obituary))

    def _obituary(self, status: int, garbage: str, log_path: Path | None) -> str:
        """How the process ended, and what to do. garbage: what it sent instead of an event; empty: nothing."""
        if self._last_words:
            return f"The engine failed ({self._last_words}). {_restart(log_path)}"
        if garbage:
            return f"The engine sent {garbage}, and was ended. {_restart(log_path)}"
        words = "" if status in FROM_OUTSIDE else self._tail.last_line()
        quoted = f" ({words})" if words else ""
        advice = _advice(status, log_path, words, self._load.smaller)
        return f"The engine ended {how_ended(status)}{quoted}. {advice}"

    def _watch(self, outbox: Outbox, pulse: Pulse, has_ended: threading.Event) -> None:
        """Ask for a sign of life while one is due, and tell when there is none."""
        ping = wire.encode(events.Ping())
        while not has_ended.wait(self._patience.tick_s):
            is_awaited = self._is_loading or self._is_replying or bool(self._uncounted) or not outbox.is_empty
            has_changed = pulse.tick(is_awaited=is_awaited, is_stopping=self._is_stopping)
            if pulse.needs_ping():
                with suppress(OutboxFullError):
                    outbox.put(ping)
            if has_changed and not self._is_closing:
                alarm = pulse.alarm
                self._delivery.deliver(events.Silent(self._silence(alarm)) if alarm else events.Answering())

    def _silence(self, alarm: Alarm) -> str:
        patience = self._patience
        match alarm:
            case Alarm.NO_START:
                return f"The engine has not started for {patience.start_ticks * patience.tick_s:.0f} seconds."
            case Alarm.NO_SIGN:
                return f"The engine has not answered for {patience.silent_ticks * patience.tick_s:.0f} seconds."
            case Alarm.NO_STOP:
                return f"The engine has not stopped for {patience.stop_ticks * patience.tick_s:.0f} seconds."

    @property
    def _is_replying(self) -> bool:
        return self._unanswered is not None

    @property
    def _is_stopping(self) -> bool:
        return self._is_replying and self._is_cancelled

    def _note(self, event: events.Event) -> None:
        match event:
            case events.Ready():
                self._is_loading, self._is_loaded = False, True
            case events.Failed(id=None):
                self._is_loading, self._unanswered = False, None
            case events.Counted(id=id) | events.Checked(id=id) | events.Failed(id=id) if id in self._uncounted:
                self._uncounted.discard(id)
            case events.Finished(id=id) | events.Failed(id=id) if id == self._unanswered:
                self._unanswered = None
            case events.LastWords(reason=reason):
                self._last_words = reason
        if self._pulse.sign(is_stopping=self._is_stopping) and not self._is_closing:
            self._delivery.deliver(events.Answering())


def raise_if_failed(event: events.Event) -> None:
    """Raise the error that an event reports: RequestError for a failed request, SlipstreamError for a failed load,
    EngineDiedError for a process that died."""
    match event:
        case events.Failed(id=None, message=message):
            raise SlipstreamError(message)
        case events.Failed(message=message, about=about):
            raise RequestError(message, about)
        case events.Died(message=message):
            raise EngineDiedError(message)


def _thread(name: str, run: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=run, args=arguments, name=name, daemon=True)
    thread.start()
    return thread


def _advice(status: int, log_path: Path | None, words: str = "", smaller: str | None = None) -> str:
    """words: what the process said about its end; empty: nothing. smaller: the next smaller model."""
    if status in OUT_OF_MEMORY and (not words or ABOUT_MEMORY.search(words)):
        choice = f"--model {smaller}" if smaller else "a smaller variant"
        return f"The machine may have been out of memory: try {choice}. Your next message restarts it."
    return _restart(log_path)


def _restart(log_path: Path | None) -> str:
    return f"Your next message restarts it{f'; see {log_path} for details' if log_path else ''}."
