"""HTTP to one server and nowhere else: no redirects, and no header that other programs' settings would add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app import __version__
from app.remote.address import ServerAddress
from app.remote.failures import connection_error

if TYPE_CHECKING:
    import httpx2

CONNECT_S = 10.0
SILENCE_S = 900.0
"""Longer than any prompt takes to read: some servers send nothing at all meanwhile."""
QUICK_S = 5.0
"""For questions that need no model."""
SENT_HEADERS = frozenset(
    {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "transfer-encoding"}
)
"""The openai client would add names of accounts and of this system, from variables meant for another server."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a quick question."""

    status: int
    headers: Mapping[str, str]
    text: str


def open_http(address: ServerAddress, key: str | None) -> httpx2.AsyncClient:
    """key: sent with every request; None: none is."""
    import httpx2

    async def trim(request: httpx2.Request) -> None:
        for name in list(request.headers):
            if name.lower() not in SENT_HEADERS:
                del request.headers[name]
        request.headers["user-agent"] = f"slipstream/{__version__}"
        if key:
            request.headers["authorization"] = f"Bearer {key}"

    return httpx2.AsyncClient(
        follow_redirects=False,
        # A proxy of the environment cannot reach a server that only this machine sees.
        trust_env=not address.is_this_machine,
        timeout=httpx2.Timeout(SILENCE_S, connect=CONNECT_S),
        event_hooks={"request": [trim]},
    )


async def ask(http: httpx2.AsyncClient, address: ServerAddress, url: str) -> Answered:
    """One quick question. Raises ServerError if the connection fails."""
    import httpx2

    try:
        response = await http.get(url, timeout=QUICK_S)
    except (httpx2.HTTPError, OSError) as error:
        raise connection_error(address, error, has_begun=False) from None
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answered(response.status_code, headers, response.text)
