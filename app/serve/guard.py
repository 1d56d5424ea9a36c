"""Who may ask, and how much: applied before a request reaches a route.

A web page that a person visits can send requests to their machine. It cannot hide that it is one: browsers add
Origin to all that could change something, and Host says the name that the page used, also where that name was made
to lead here. Programs send neither a foreign Host nor any Origin.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.serve.errors import (
    BadRequestError,
    BrokenServerError,
    BusyError,
    ForbiddenError,
    LargeHeadersError,
    LargeRequestError,
    ServeError,
    SlowRequestError,
    WrongKeyError,
)
from app.serve.sending import error_response
from app.system.console import tell
from mlx_engine.protocol.log_file import trace

MAX_HEADER_BYTES = 32 << 10
MAX_BODY_BYTES = 32 << 20
"""More than the longest context takes, with images in it."""
MAX_BODIES_BYTES = 8 * MAX_BODY_BYTES
BODY_S = 60.0
"""How long a client may take to send its request."""
LARGE_BODY_BYTES = 1 << 20
"""Reading more takes so long that other requests would notice."""
HALF_CHARACTER = re.compile(rb"\\u[dD][89abAB]")

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom the server answers."""

    host: str
    """The address that it listens at."""
    key: str | None = None
    """None: any key is accepted, and none is needed."""

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    def check(self, headers: Headers) -> None:
        """Raises ServeError."""
        if self.is_loopback and not is_loopback(name := _host_name(headers.get("host", ""))):
            raise ForbiddenError(
                f"This server does not answer under the name {name[:100]!r}. Use http://127.0.0.1 or localhost."
            )
        if "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise ForbiddenError("Web pages cannot use this server. Use a program that runs outside the browser.")
        if self.key is not None and not self._has_key(headers):
            raise WrongKeyError("The API key is missing or wrong. Send the one that the server was started with.")

    def _has_key(self, headers: Headers) -> bool:
        assert self.key is not None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = [headers.get("x-api-key", ""), token.strip() if scheme.lower() == "bearer" else ""]
        # The bytes as they came: headers have no encoding.
        return any(hmac.compare_digest(key.encode("latin-1"), self.key.encode()) for key in given)


def is_loopback(name: str) -> bool:
    """Whether a host name or address always means this machine."""
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """Without the port and the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


class Guard:
    """Checks every request; turns every error into an answer that says nothing of what was sent."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app, self._policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_begun = False

        async def sending(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
                raise LargeHeadersError(f"The headers are larger than {MAX_HEADER_BYTES >> 10} KiB. Send less.")
            self._policy.check(Headers(scope=scope))
            await self._app(scope, receive, sending)
            return
        except ServeError as raised:
            error = raised
        except ClientDisconnect:
            return
        except Exception as raised:
            tell(trace(raised))
            error = BrokenServerError("The server failed at this request. Send it again.")
        if is_begun:
            raise error from None  # the connection is closed, so that the client sees that it is not whole
        await error_response(error)(scope, receive, send)


class Bodies:
    """The bodies that are being read and checked: together they are bounded."""

    def __init__(self) -> None:
        self._bytes = 0

    @asynccontextmanager
    async def read(self, request: Request, reader: Callable[[dict[str, Any]], Read]) -> AsyncIterator[Read]:
        """What `reader` makes of a JSON object, the body. It counts until it is done with. Raises ServeError.

        A large body is read in a thread, so that the others are answered meanwhile.
        """
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(BODY_S):
                    await self._take(request, body)
            except TimeoutError:
                raise SlowRequestError(
                    f"The request did not arrive within {BODY_S:.0f} seconds. Send it again."
                ) from None
            if len(body) > LARGE_BODY_BYTES:
                yield await asyncio.to_thread(_read, bytes(body), reader)
            else:
                yield _read(bytes(body), reader)
        finally:
            self._bytes -= len(body)

    async def _take(self, request: Request, body: bytearray) -> None:
        announced = request.headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > MAX_BODY_BYTES:
            raise _too_large()
        async for part in request.stream():
            self._bytes += len(part)
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
            if self._bytes > MAX_BODIES_BYTES:
                raise BusyError("Too many large requests come at once. Send it again in a moment.")


def _too_large() -> LargeRequestError:
    return LargeRequestError(f"The request is larger than {MAX_BODY_BYTES >> 20} MiB. Send less.")


def _read(body: bytes, reader: Callable[[dict[str, Any]], Read]) -> Read:
    value = _parsed(body)
    if not isinstance(value, dict):
        raise BadRequestError("The body is not a JSON object. Send one with the fields of this API.")
    return reader(value)


def _parsed(body: bytes) -> Any:
    try:
        value = json.loads(body.decode("utf-8"))
        # Programs that cut texts anywhere send halves of characters, which are no text.
        return _whole(value) if HALF_CHARACTER.search(body) else value
    except UnicodeDecodeError as error:
        raise BadRequestError(f"The body is not valid UTF-8 (byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise BadRequestError(f"The body is not valid JSON: {error.msg}, at character {error.pos}.") from None
    except RecursionError:
        raise BadRequestError("The body is nested too deeply to be read. Send a simpler one.") from None
    except ValueError:
        raise BadRequestError("A number in the body has too many digits. Send a smaller one.") from None


def _whole(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [_whole(inner) for inner in value]
        case dict():
            return {_whole(key): _whole(inner) for key, inner in value.items()}
    return value
