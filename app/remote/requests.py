"""What a `slipstream serve` is asked by all its clients, and how one of these requests is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from app.remote.address import ServerAddress, ServerError
from app.remote.failures import connection_error, status_error
from app.remote.http import QUICK_S, open_http
from app.remote.keys import key_for

if TYPE_CHECKING:
    import httpx2

SILENCE_S = 30.0
"""The list says every ten seconds that it is still there."""
DATA = "data: "


class ServedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as the server lists it. None: not measured yet."""

    id: str
    client: str
    """The program that asks, as it calls itself."""
    state: str
    """queued, reading, writing or done."""
    failed: str | None = None
    """Why it failed, in a word; None: it did not."""
    age_s: float
    """From its arrival to its end, or to now."""
    prompt_tokens: int
    cached_tokens: int
    """Those of the prompt that need not be read."""
    read_tokens: int
    """Of the prompt so far, cached ones included."""
    completion_tokens: int
    tokens_per_s: float | None
    acceptance: float | None

    @property
    def has_ended(self) -> bool:
        return self.state == "done"

    @property
    def program(self) -> str:
        """The client without its version."""
        return self.client.partition("/")[0]


class _Listed(msgspec.Struct, frozen=True):
    requests: tuple[ServedRequest, ...]


class ServerRequests:
    """The requests of one server. Every method raises ServerError."""

    def __init__(self, address: ServerAddress) -> None:
        self.address = address

    async def now(self) -> tuple[ServedRequest, ...]:
        """All that wait, run or ended lately; those that ended come first."""
        async with self._connection() as http:
            response = await http.get(self._url, timeout=QUICK_S)
            self._check(response)
            return self._read(response.content)

    async def follow(self) -> AsyncGenerator[tuple[ServedRequest, ...], None]:
        """The same now, and again at every change, until the server cannot be reached any more."""
        async with (
            self._connection() as http,
            http.stream("GET", self._url, headers={"accept": "text/event-stream"}, timeout=SILENCE_S) as response,
        ):
            import httpx2

            self._check(response)
            with suppress(httpx2.TransportError):
                async for line in response.aiter_lines():
                    if line.startswith(DATA):
                        yield self._read(line.removeprefix(DATA).encode())

    async def stop(self, id: str) -> bool:
        """End a request: its answer ends with what it has. False: it has ended already."""
        async with self._connection() as http:
            response = await http.post(f"{self._url}/{quote(id, safe='')}/stop", timeout=QUICK_S)
            if response.status_code != 404:
                self._check(response)
            return response.status_code != 404

    @property
    def _url(self) -> str:
        return f"{self.address.root}/slipstream/requests"

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[httpx2.AsyncClient]:
        # In a thread, because the first import and the keychain take their time.
        http = await asyncio.to_thread(lambda: open_http(self.address, key_for(self.address)))
        import httpx2

        async with http:
            try:
                yield http
            except (httpx2.HTTPError, OSError) as error:
                raise connection_error(self.address, error, has_begun=False) from None

    def _check(self, response: httpx2.Response) -> None:
        if response.status_code == 404:
            raise ServerError(f"{self.address.shown} does not list its requests. `slipstream serve` does.")
        if response.status_code != 200:
            raise status_error(self.address, response.status_code, response.headers, "")

    def _read(self, data: bytes) -> tuple[ServedRequest, ...]:
        try:
            return msgspec.json.decode(data, type=_Listed).requests
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ServerError(
                f"{self.address.shown} lists its requests in a form that is not known here. Use the same version "
                "of Slipstream on both sides."
            ) from None
