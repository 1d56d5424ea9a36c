"""Decides when a process that is waited for has fallen silent.

A sign of life is any message from it, and the answer to a ping, which a thread of its own gives while another one
loads or computes. A process that is stopped, or stuck inside one call of a library, gives none.

Time is counted in ticks of the watching process: while that one sleeps or is stopped itself, no tick passes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait before a person is told."""

    tick_s: float = 2.0
    start_ticks: int = 30
    """For the first sign of life: reading MLX from a slow disk can take this long."""
    silent_ticks: int = 5
    """For any later one."""
    stop_ticks: int = 10
    """For the end of a reply that was cancelled."""


class Alarm(Enum):
    """What is wrong."""

    NO_START = auto()
    NO_SIGN = auto()
    NO_STOP = auto()
    """It is alive, but does not come to the end of a reply that was cancelled."""


class Pulse:
    """Of one process. Any thread may call it."""

    def __init__(self, patience: Patience) -> None:
        self.alarm: Alarm | None = None
        self._patience = patience
        self._lock = threading.RLock()
        self._has_started = False
        self._quiet_ticks = 0
        self._stopping_ticks = 0
        self._is_pinged = False

    def sign(self, *, is_stopping: bool) -> bool:
        """The process gave a sign of life. Returns whether that ended an alarm.

        is_stopping: a reply that was cancelled has not ended yet.
        """
        with self._lock:
            self._has_started, self._is_pinged, self._quiet_ticks = True, False, 0
            if not is_stopping:
                self._stopping_ticks = 0
            return self._judge() and self.alarm is None

    def needs_ping(self) -> bool:
        """Whether to send a ping now: the process has been quiet for a tick, and owes no answer yet."""
        with self._lock:
            needs_ping = self._quiet_ticks > 0 and not self._is_pinged
            self._is_pinged = self._is_pinged or needs_ping
            return needs_ping

    def tick(self, *, is_awaited: bool, is_stopping: bool) -> bool:
        """Some time has passed. Returns whether the alarm has changed.

        is_awaited: something was asked of the process, and is not answered yet.
        """
        with self._lock:
            self._quiet_ticks = self._quiet_ticks + 1 if is_awaited else 0
            self._stopping_ticks = self._stopping_ticks + 1 if is_stopping else 0
            return self._judge()

    def _judge(self) -> bool:
        """Set the alarm. Returns whether it has changed."""
        before, self.alarm = self.alarm, self._alarm()
        return self.alarm is not before

    def _alarm(self) -> Alarm | None:
        if not self._has_started and self._quiet_ticks >= self._patience.start_ticks:
            return Alarm.NO_START
        if self._has_started and self._quiet_ticks >= self._patience.silent_ticks:
            return Alarm.NO_SIGN
        return Alarm.NO_STOP if self._stopping_ticks >= self._patience.stop_ticks else None
