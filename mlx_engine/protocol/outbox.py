"""Writes to a pipe for callers that must not wait, such as the thread of a screen."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from contextlib import suppress
from typing import IO

from mlx_engine.protocol.errors import SlipstreamError

MAX_MESSAGES = 64
MAX_BYTES = 64 << 20
"""What may wait in all. A single message may be larger if nothing else waits."""
CHECK_MS = 100
"""How often a write to a full pipe checks whether the outbox was closed."""


class OutboxFullError(SlipstreamError):
    """The other side does not read, and too much waits for it already."""


class Outbox:
    """A bounded queue of messages for a pipe, emptied by a thread of its own. Methods return at once."""

    def __init__(self, pipe: IO[bytes]) -> None:
        """pipe: unbuffered; the outbox closes it."""
        self._pipe = pipe
        os.set_blocking(pipe.fileno(), False)
        self._messages: deque[bytes] = deque()
        """The first one is being written."""
        self._waiting_bytes = 0
        self._is_open = True
        # Reentrant, because a signal handler may put a message while its thread puts another.
        self._changed = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._write_all, name="outbox", daemon=True)
        self._thread.start()

    @property
    def is_empty(self) -> bool:
        """Whether everything has been written."""
        return not self._messages

    def put(self, message: bytes) -> None:
        """Write this after what waits already; nothing if the other side is gone. Raises OutboxFullError."""
        with self._changed:
            if not self._is_open:
                return
            is_too_much = self._waiting_bytes + len(message) > MAX_BYTES
            if len(self._messages) >= MAX_MESSAGES or (self._messages and is_too_much):
                raise OutboxFullError("The engine does not read its messages, and too many wait already.")
            self._messages.append(message)
            self._waiting_bytes += len(message)
            self._changed.notify()

    def close(self) -> None:
        """Close the pipe. What waits is not written any more."""
        with self._changed:
            self._is_open = False
            self._changed.notify()

    def join(self) -> None:
        """Wait until the pipe is closed. Call `close` first."""
        self._thread.join()

    def _write_all(self) -> None:
        with suppress(OSError):  # the other side is gone; whoever reads from it will notice
            while (message := self._next()) is not None:
                self._write(message)
        with self._changed:
            self._is_open = False
            self._messages.clear()
        with suppress(OSError):
            self._pipe.close()

    def _next(self) -> bytes | None:
        """The next message, once there is one; None after `close`."""
        with self._changed:
            while self._is_open and not self._messages:
                self._changed.wait()
            return self._messages[0] if self._is_open else None

    def _write(self, message: bytes) -> None:
        poller = select.poll()
        poller.register(self._pipe, select.POLLOUT)
        rest = memoryview(message)
        while rest and self._is_open:
            try:
                rest = rest[os.write(self._pipe.fileno(), rest) :]
            except BlockingIOError:
                poller.poll(CHECK_MS)
        with self._changed:
            self._messages.popleft()
            self._waiting_bytes -= len(message)
