"""A server on the loopback address, over an engine that a test speaks for."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import uvicorn

from app.core.reply_options import ReplyOptions
from app.serve.connections import uvicorn_options
from app.serve.dialects import all_dialects
from app.serve.guard import Policy
from app.serve.server import Server
from mlx_engine.protocol.events import Generate, Load
from tests.fakes.engine import FakeEngine
from tests.patience import PATIENCE_S

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi there"}]


class HeldEngine(FakeEngine):
    """Waits for the test after every request."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: queue.Queue[Generate] = queue.Queue()
        self.is_cancelled = threading.Event()

    def generate(self, request: Generate) -> None:
        """Tell the test."""
        super().generate(request)
        self.is_cancelled.clear()
        self.asked.put(request)

    def cancel(self) -> None:
        """Tell the test."""
        super().cancel()
        self.is_cancelled.set()

    def next_request(self) -> Generate:
        """Wait for one."""
        return self.asked.get(timeout=PATIENCE_S)

    def wait_for_cancel(self) -> None:
        """Wait until the reply is to end, and end it."""
        assert self.is_cancelled.wait(PATIENCE_S)
        self.finish("cancelled")


class QuickEngine(HeldEngine):
    """Answers every request with `Hello there.` in two rounds."""

    def generate(self, request: Generate) -> None:
        """Answer at once."""
        super().generate(request)
        self.begin()
        self.say("Hello ")
        self.say("there.")
        self.finish()


class Served:
    """A running server."""

    def __init__(self, address: tuple[str, int], server: Server) -> None:
        self.address, self.server = address, server
        self.url = f"http://{address[0]}:{address[1]}"

    def client(self, **options: Any) -> httpx2.Client:
        """A client of it."""
        return httpx2.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False, **options)

    def socket(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(self.address, timeout=PATIENCE_S)

    def states(self) -> list[dict[str, Any]]:
        """The list of requests."""
        with self.client() as client:
            return list(client.get("/slipstream/requests").json()["requests"])

    def wait_for(self, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Follow the list of requests until it looks so."""
        with (
            self.client() as client,
            client.stream("GET", "/slipstream/requests", headers={"accept": "text/event-stream"}) as stream,
        ):
            for line in stream.iter_lines():
                if line.startswith("data: ") and condition(states := json.loads(line[6:])["requests"]):
                    return list(states)
        raise AssertionError("the list ended")


@contextmanager
def serving(
    engine: FakeEngine,
    key: str | None = None,
    host: str = "127.0.0.1",
    usual: ReplyOptions | None = None,
    patience_s: int | None = None,
) -> Iterator[Served]:
    """Run a server in a thread. patience_s: how long answers may take to become whole when it is ended."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = Server(engine, Load("fake"), all_dialects(), Policy(host, key), usual)
    options = uvicorn_options() | ({} if patience_s is None else {"timeout_graceful_shutdown": patience_s})
    runner = uvicorn.Server(uvicorn.Config(server.app, **options))
    thread = threading.Thread(target=runner.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Served(listening.getsockname(), server)
    finally:
        runner.should_exit = True
        thread.join(PATIENCE_S)
        listening.close()
        assert not thread.is_alive()


def chat(**fields: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"model": "any", "messages": HI, **fields}
