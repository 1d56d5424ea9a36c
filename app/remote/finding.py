"""The servers that run on this machine, found by the ports that they use unless told otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.remote.address import ServerAddress, ServerError, parse_address
from app.remote.connection import Served, look
from app.remote.http import open_http
from app.remote.kinds import OF_A_PORT
from app.system import places
from app.system.running_server import find_server

PORTS = tuple(sorted({kind.port for kind in OF_A_PORT if kind.port is not None}))


@dataclass(frozen=True, slots=True)
class Found:
    """Something that answers at a port."""

    address: ServerAddress
    served: Served | None
    problem: str = ""
    """Why it cannot be used as it is; empty if it can."""


def find_servers(ports: Iterable[int] = PORTS) -> list[Found]:
    """Ask all ports at once, and that of a `slipstream serve` that runs. No key is sent to the others: whoever
    listens there is not known yet."""
    roots = {f"http://127.0.0.1:{port}": None for port in sorted(ports)}
    own = find_server(places.server_file())
    keys = roots | ({own.url: own.key} if own is not None else {})
    return asyncio.run(_find(keys))


def look_at(address: ServerAddress, key: str | None) -> Served:
    """What the server at an address is. Raises ServerError."""
    return asyncio.run(_look(address, key))


async def _find(keys: Mapping[str, str | None]) -> list[Found]:
    """keys: by the root of each address to ask."""
    found = await asyncio.gather(*(_at(parse_address(root), key) for root, key in keys.items()))
    return [each for each in found if each is not None]


async def _at(address: ServerAddress, key: str | None) -> Found | None:
    """None: nothing listens there."""
    try:
        _, writer = await asyncio.open_connection(address.host, urlsplit(address.root).port)
    except OSError:
        return None
    writer.close()
    try:
        return Found(address, await _look(address, key))
    except ServerError as error:
        return Found(address, None, str(error))


async def _look(address: ServerAddress, key: str | None) -> Served:
    async with open_http(address, key) as http:
        return await look(http, address, key)
