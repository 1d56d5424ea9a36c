"""A server as an engine: the same handle as the child process has, over chat completions.

A thread of its own runs everything that waits for the network. A reply is one task on it, so stopping a reply
cancels the task, which closes the stream at whatever byte it is; servers notice that while they decode.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from app.remote.address import ServerAddress, ServerError
from app.remote.connection import Served, ServedModel, look
from app.remote.counters import Counters, growth, read_counters
from app.remote.failures import connection_error, reported_error, status_error
from app.remote.http import ask, open_http
from app.remote.incoming import IncomingReply, ended
from app.remote.keys import key_for
from app.remote.request import server_request
from mlx_engine.protocol import events
from mlx_engine.protocol.delivery import Delivery, OnEvent
from mlx_engine.protocol.errors import SlipstreamError

if TYPE_CHECKING:
    import httpx2
    import openai

MISSING = "Talking to a server needs openai's client. Install the extra: `pip install --editable '.[remote]'`."
CLOSE_TIMEOUT_S = 2.0

Result = TypeVar("Result")


def check_installed() -> None:
    """Raises ServerError with what to install."""
    if importlib.util.find_spec("openai") is None:
        raise ServerError(MISSING)


@dataclass(frozen=True, slots=True)
class Connection:
    """A server that was found to answer."""

    http: httpx2.AsyncClient
    client: openai.AsyncOpenAI
    key: str | None
    served: Served
    model: ServedModel


class RemoteEngine:
    """An `EngineHandle` over a server."""

    def __init__(self, address: ServerAddress, load: events.Load) -> None:
        """load: names the server's model as its target; empty: the one that it has loaded, or its first."""
        self._address, self._load = address, load
        self._delivery = Delivery()
        self._lifecycle = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # The rest belongs to the loop's thread.
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._reply: asyncio.Task[events.Finished] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        """Attempts to connect, and replies; cancelled ones too, until they have ended."""
        self._closing: set[asyncio.Task[None]] = set()
        """Connections that are being closed."""
        self._is_closing = False
        self._told: set[str] = set()
        """Notices that were given; each is given once."""

    @property
    def on_event(self) -> OnEvent | None:
        """See EngineHandle."""
        return self._delivery.listener

    @on_event.setter
    def on_event(self, listener: OnEvent | None) -> None:
        self._delivery.listener = listener

    def start(self) -> None:
        """See EngineHandle. Asks the server what it is."""
        self._call(self._connect)

    def generate(self, request: events.Generate) -> None:
        """See EngineHandle. A server that was lost is asked again what it is, since another may be there now."""
        self._call(partial(self._begin, request))

    def check(self, request: events.Generate) -> None:
        """See EngineHandle. Always fails: servers say how long a prompt is when they answer it."""
        self._deliver(events.Failed(request.id, "A server does not say beforehand how long a prompt is."))

    def cancel(self) -> None:
        """See EngineHandle. Ends the reply wherever it is, and closes its stream."""
        self._call(self._cancel)

    def set_draft_length(self, draft_length: events.DraftSetting) -> None:
        """See EngineHandle. A server learns it with the next request."""

    def count(self, id: int, text: str) -> None:
        """See EngineHandle. Servers are not asked: each would count in another way, and most not at all."""

    def measure(self, id: int) -> None:
        """See EngineHandle. Always fails: what is measured is a device, and it is elsewhere."""
        self._deliver(events.Failed(id, "The kernels of a server cannot be measured from here."))

    def switch(self, load: events.Load) -> None:
        """See EngineHandle. Names another model of the same server."""
        self._load = load
        self._call(self._reconnect)

    def close(self) -> None:
        """See EngineHandle."""
        with self._lifecycle:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
            self._is_closing = True
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CLOSE_TIMEOUT_S)

    # The thread

    def _call(self, work: Callable[[], object]) -> None:
        """Do something on the loop's thread, which is started first if it does not run."""
        with self._lifecycle:
            if self._loop is None:
                self._is_closing = False
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name="server-events", daemon=True
                )
                self._thread.start()
            self._loop.call_soon_threadsafe(work)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(self._end_all())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _end_all(self) -> None:
        # Only those begun here; they end what libraries began for them. With all tasks of the loop cancelled,
        # Python would warn about a child of anyio's that never made its first step.
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._disconnect()
        await asyncio.gather(*self._closing)

    def _begin_task(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    # Connecting

    def _connect(self) -> asyncio.Task[Connection]:
        """The task that connects; a second caller waits for the same one."""
        if self._connecting is None or (self._connecting.done() and self._connection is None):
            self._connecting = self._begin_task(self._look())
            self._connecting.add_done_callback(self._looked)
        return self._connecting

    async def _look(self) -> Connection:
        began_s = time.monotonic()
        self._deliver(events.Loading(f"asking {self._address.shown}", is_remote=True))
        key = await asyncio.to_thread(key_for, self._address)
        http = open_http(self._address, key)
        client = await asyncio.to_thread(_openai_client, self._address, key, http)
        try:
            served = await look(http, self._address, key)
            model = served.model(self._load.target or None, self._address)
        except BaseException:
            await http.aclose()
            raise
        self._connection = Connection(http, client, key, served, model)
        if key and not (self._address.is_encrypted or self._address.is_this_machine):
            self._tell(f"The connection to {self._address.shown} is not encrypted: others may read the key.")
        if served.kind.warning:
            self._tell(served.kind.warning)
        self._deliver(served.ready(model, time.monotonic() - began_s))
        return self._connection

    def _looked(self, task: asyncio.Task[Connection]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._deliver(events.Failed(None, _sentence(error)))

    def _reconnect(self) -> None:
        self._cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        self._disconnect()
        self._connect()

    def _disconnect(self) -> None:
        """The next request asks anew what the server is."""
        lost, self._connection, self._connecting = self._connection, None, None
        if lost is not None:
            closing = asyncio.get_running_loop().create_task(lost.http.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    # A reply

    def _begin(self, request: events.Generate) -> None:
        self._cancel()
        self._reply = self._begin_task(self._answer(request))
        self._reply.add_done_callback(partial(self._answered, request.id))

    def _cancel(self) -> None:
        if self._reply is not None:
            self._reply.cancel()

    def _answered(self, id: int, task: asyncio.Task[events.Finished]) -> None:
        """Tell how a reply ended."""
        if self._reply is task:
            self._reply = None
        if task.cancelled():
            name = self._connection.served.kind.name if self._connection else self._address.shown
            self._deliver(ended(id, "cancelled", events.ServerFigures(name)))
        elif (error := task.exception()) is None:
            self._deliver(task.result())
        elif not isinstance(error, _NotConnectedError):
            self._deliver(events.Failed(id, _sentence(error)))

    async def _answer(self, request: events.Generate) -> events.Finished:
        try:
            connection = await asyncio.shield(self._connect())
        except SlipstreamError as error:
            raise _NotConnectedError from error  # which `_looked` has told
        kind, model = connection.served.kind, connection.model
        asked = server_request(request, kind, model.id, model.context_tokens)
        for notice in asked.notices:
            self._tell(notice)
        before = await self._counters(connection)
        incoming = IncomingReply(request.id, kind, request.max_tokens, asked.repeated)
        began_s = time.monotonic()
        async with aclosing(self._stream(connection, asked.body, incoming)) as messages:
            async for message in messages:
                part = incoming.read(message, time.monotonic() - began_s)
                if part is not None:
                    self._deliver(part)
        if before:
            requests = kind.counters
            assert requests is not None
            incoming.reported.counters = growth(before, await self._counters(connection), requests)
        return incoming.finished()

    async def _stream(self, connection: Connection, body: Any, incoming: IncomingReply) -> AsyncGenerator[Any]:
        """The messages of an answer. Raises ServerError."""
        import httpx2
        import openai

        address, key = self._address, connection.key
        try:
            stream = await connection.client.chat.completions.create(
                messages=[], model="", stream=True, stream_options={"include_usage": True}, extra_body=body
            )
            async with stream:
                async for chunk in stream:
                    yield chunk.to_dict() if hasattr(chunk, "to_dict") else chunk
        except openai.APIStatusError as error:
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            raise status_error(address, error.status_code, headers, error.body, key=key) from None
        except (openai.APIConnectionError, httpx2.HTTPError, OSError) as error:
            if self._connection is connection:
                self._disconnect()
            raise connection_error(address, error, has_begun=incoming.has_words) from None
        except openai.APIError as error:
            raise reported_error(address, error.body, has_begun=incoming.has_words, key=key) from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise ServerError(
                f"{address.shown} sent something that is no part of an answer. A proxy in between may have failed."
            ) from None

    async def _counters(self, connection: Connection) -> Counters:
        """Empty if the server has none, or does not say them now."""
        if not connection.served.has_metrics:
            return {}
        try:
            answered = await ask(connection.http, self._address, f"{self._address.root}/metrics")
        except ServerError:
            return {}
        return read_counters(answered.text) if answered.status == 200 else {}

    def _deliver(self, event: events.Event) -> None:
        """Nobody hears what ends because the engine is closed."""
        if not self._is_closing:
            self._delivery.deliver(event)

    def _tell(self, notice: str) -> None:
        if notice not in self._told:
            self._told.add(notice)
            self._deliver(events.Notice(notice))


def _openai_client(address: ServerAddress, key: str | None, http: httpx2.AsyncClient) -> openai.AsyncOpenAI:
    """Importing it takes a second, so this is for another thread."""
    import openai

    return openai.AsyncOpenAI(base_url=address.url, api_key=key or "none", max_retries=0, http_client=http)


class _NotConnectedError(Exception):
    """There is no server to ask, which the person was told."""


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, SlipstreamError) else f"The server could not be used ({error!r})."
