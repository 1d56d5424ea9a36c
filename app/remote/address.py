"""Where a server is."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.text.sanitise import sanitise_line
from mlx_engine.protocol.errors import SlipstreamError


class ServerError(SlipstreamError):
    """A server cannot be used, or a reply of it failed; the message says which server and what to do."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The one place that a chat with a server talks to."""

    root: str
    """Scheme, host and port: `http://studio.local:8765`."""
    path: str
    """Of the API, without a slash at its end: `/v1`."""

    @property
    def url(self) -> str:
        """The base of the API."""
        return f"{self.root}{self.path}"

    @property
    def shown(self) -> str:
        """Host and port, for people, and as the name of its key."""
        return urlsplit(self.root).netloc

    @property
    def host(self) -> str:
        return urlsplit(self.root).hostname or ""

    @property
    def is_this_machine(self) -> bool:
        """Whether it can be reached from nowhere else."""
        return _is_loopback(self.host)

    @property
    def is_encrypted(self) -> bool:
        return self.root.startswith("https:")


def parse_address(text: str) -> ServerAddress:
    """The address that a person typed: `studio.local:8765` is enough. Raises ServerError.

    Without a scheme, a name of the local network is asked without encryption, any other with it. Without a path,
    the API is at `/v1`, as nearly everywhere.
    """
    text = text.strip()
    shown = sanitise_line(text.rsplit("@", 1)[-1])
    has_scheme = "://" in text
    try:
        parts = urlsplit(text if has_scheme else f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ServerError(f"{shown!r} is no address. Use one such as http://studio.local:8765.") from None
    if not host or (has_scheme and parts.scheme not in ("http", "https")) or parts.query or parts.fragment:
        raise ServerError(f"{shown!r} is no address of a server. Use one such as http://studio.local:8765.")
    if parts.username is not None:
        raise ServerError(
            f"The address of {shown} contains a key or a password, which would be stored and logged with it. "
            "Leave it out, and set SLIPSTREAM_SERVER_KEY or use `slipstream servers key`."
        )
    scheme = parts.scheme if has_scheme else "http" if _is_local(host) else "https"
    place = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return ServerAddress(f"{scheme}://{place}{f':{port}' if port else ''}", path or "/v1")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_local(host: str) -> bool:
    """Whether it is a name or an address of a local network."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".home.arpa", ".localhost", ".internal"))
