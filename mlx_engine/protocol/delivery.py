"""Hands events to whoever listens; until somebody does, they wait."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mlx_engine.protocol.events import Event

OnEvent = Callable[[Event], None]


class Delivery:
    """Any thread may deliver; the listener is called on that thread, with one event at a time."""

    def __init__(self) -> None:
        self._listener: OnEvent | None = None
        self._waiting: list[Event] = []
        self._lock = threading.Lock()

    @property
    def listener(self) -> OnEvent | None:
        return self._listener

    @listener.setter
    def listener(self, listener: OnEvent | None) -> None:
        with self._lock:
            self._listener = listener
            while listener and self._waiting:
                listener(self._waiting.pop(0))

    def deliver(self, event: Event) -> None:
        with self._lock:
            if self._listener:
                self._listener(event)
            else:
                self._waiting.append(event)
