"""Limits of connections that ASGI does not reach: how many, how long they may be idle, and how slowly they read.

Idle connections cost a file each. When there are too many, the one that has been idle longest is closed, so that
they never keep a client out.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from app.serve.guard import MAX_HEADER_BYTES

MOST_CONNECTIONS = 4096
SPARE_FILES = 64
"""For the models, the engine's pipes and the log."""
HEADER_S = 20.0
"""How long a client may take from its connection to the end of its headers."""
KEEP_ALIVE_S = 75.0
"""How long a connection may be idle after an answer."""
WRITE_S = 60.0
"""How long a client may take nothing of what waits for it."""

_idle: dict[LimitedConnection, None] = {}
"""Connections without a request, the one that has been idle longest first."""


class LimitedConnection(H11Protocol):
    """One connection, with time limits."""

    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._wait_for_request(HEADER_S)
        if len(self.connections) > most_connections() and _idle:
            next(iter(_idle)).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stop_waiting()
        self._stop_write_deadline()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Called when data came, or when a response is complete."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """See H11Protocol."""
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_request(KEEP_ALIVE_S)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._expect_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        self._stop_write_deadline()

    def _expect_reader(self, waiting_bytes: int) -> None:
        """Abort unless fewer bytes wait after a while."""
        self._stop_write_deadline()
        self._write_deadline = self.loop.call_later(WRITE_S, self._check_reader, waiting_bytes)

    def _check_reader(self, before_bytes: int) -> None:
        now_bytes = self.transport.get_write_buffer_size()
        if now_bytes < before_bytes:
            self._expect_reader(now_bytes)
        else:
            self.transport.abort()

    def _wait_for_request(self, patience_s: float) -> None:
        self._stop_waiting()
        _idle[self] = None
        self._deadline = self.loop.call_later(patience_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        _idle.pop(self, None)
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _stop_write_deadline(self) -> None:
        if self._write_deadline:
            self._write_deadline.cancel()
            self._write_deadline = None


def most_connections() -> int:
    """As many as there can be open files, and no more than would be of use."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, soft - SPARE_FILES)


def allow_connections() -> None:
    """Let this process open as many files as connections need. macOS allows 256 at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def uvicorn_options() -> dict[str, Any]:
    """How uvicorn is run: quietly, and with these connections."""
    return {
        "http": LimitedConnection,
        "ws": "none",
        "loop": "asyncio",
        "lifespan": "on",
        "log_config": None,
        "log_level": "critical",  # what it logs may quote what a client sent
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": int(KEEP_ALIVE_S),
        "timeout_graceful_shutdown": 2,
        "h11_max_incomplete_event_size": MAX_HEADER_BYTES,  # Guard measures headers that come in one piece
    }
