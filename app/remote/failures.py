"""What went wrong with a server, in sentences: what happened, where, and what to do.

The words of a server are quoted on one line, shortened, without control sequences, and without the key.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from app.remote.address import ServerAddress, ServerError
from app.text.sanitise import sanitise_line

QUOTED_CHARACTERS = 300
TOO_LONG = re.compile(
    r"maximum context length|context_length_exceeded|exceed_context_size|available context size|context budget"
    r"|context window|too many tokens|prompt is too long|longer than the model's context length",
    re.IGNORECASE,
)
LIMIT = re.compile(
    r"(?:maximum context length (?:is|of)|context size \(|context length (?:of|\()) ?(\d+)", re.IGNORECASE
)
LENGTH = re.compile(
    r"(?:request \(|requested (?:a total of )?|prompt contains |resulted in |prompt is |the input \()"
    r"(?P<at_least>at least )?(?P<length>\d+)",
    re.IGNORECASE,
)
"""vLLM stops counting one token behind the limit."""
COMPLETION = re.compile(r"(\d+) (?:tokens )?(?:in|for) the completion", re.IGNORECASE)
"""Servers that count the tokens of the reply in."""


def status_error(
    address: ServerAddress, status: int, headers: Mapping[str, str], body: Any, *, key: str | None = None
) -> ServerError:
    """For an answer with a status that is no success. body: as JSON, or its text."""
    where, words = address.shown, words_of(body, key)
    quoted = f": {words}" if words else ""
    if 300 <= status < 400:
        target = sanitise_line(headers.get("location", "elsewhere"))
        return ServerError(
            f"{where} sends its clients on to {target}. Nothing was sent there. If that is the server you mean, "
            "name it with --server."
        )
    if TOO_LONG.search(f"{words} {_code(body)}"):
        return ServerError(_too_long(where, body, words))
    if status in (401, 403):
        known = "does not accept the key" if key else "asks for a key"
        return ServerError(
            f"{where} {known} ({status}{quoted}). Set SLIPSTREAM_SERVER_KEY, or store it with "
            f"`slipstream servers key {where}`."
        )
    if status == 404:
        return ServerError(
            f"{where} does not know the model, or has no such API at {address.path} (404{quoted}). "
            f"`slipstream servers test {address.url}` lists its models."
        )
    if status == 429:
        return ServerError(f"{where} has too much to do (429{quoted}).{_wait(headers)}")
    if status >= 500:
        name = _phrase(status)
        return ServerError(
            f"{where} failed ({status}{name}{quoted}).{_wait(headers) or ' Try again in a moment.'}"
        )
    return ServerError(f"{where} refuses the request ({status}{quoted}).")


def reported_error(address: ServerAddress, body: Any, *, has_begun: bool, key: str | None = None) -> ServerError:
    """For an error inside a stream. has_begun: some of the reply had come."""
    words = words_of(body, key)
    if TOO_LONG.search(f"{words} {_code(body)}"):
        return ServerError(_too_long(address.shown, body, words))
    why = words or "it does not say why"
    if not has_begun:
        return ServerError(f"{address.shown} failed before the reply began: {why}. Try again in a moment.")
    return ServerError(f"{address.shown} broke the reply off: {why}. /continue goes on.")


def connection_error(address: ServerAddress, error: BaseException, *, has_begun: bool) -> ServerError:
    """For a connection that failed. has_begun: in the middle of an answer."""
    import httpx2

    where, causes = address.shown, list(_causes(error))
    if any(isinstance(cause, httpx2.ProxyError) for cause in causes):
        return ServerError(
            f"The proxy between here and {where} refuses ({_words(causes)}). Check HTTPS_PROXY, or name the "
            "server in NO_PROXY."
        )
    if any(isinstance(cause, ssl.SSLError) or "certificate" in str(cause).lower() for cause in causes):
        return ServerError(
            f"The encrypted connection to {where} failed ({_words(causes)}). If its certificate is your own, name "
            "the authority in SSL_CERT_FILE; if it has none, use http://."
        )
    if has_begun:
        return ServerError(
            f"The connection to {where} broke off in the middle of the reply ({_words(causes)}). "
            "/continue goes on."
        )
    if any(isinstance(cause, httpx2.ReadTimeout) for cause in causes):
        return ServerError(f"{where} took the request and then sent nothing for too long. Try again.")
    if any(isinstance(cause, httpx2.TimeoutException) for cause in causes):
        return ServerError(f"{where} does not answer. Check the address, the network and the firewall.")
    if any(isinstance(cause, httpx2.ConnectError) for cause in causes):
        return ServerError(
            f"No server answers at {address.root}{_proxy(address)} ({_words(causes)}). Start it, or check the "
            "address; `slipstream servers` finds those on this machine."
        )
    return ServerError(f"{where} closed the connection without an answer ({_words(causes)}). Try again.")


def _proxy(address: ServerAddress) -> str:
    """The proxy that the environment names for it, without its password; empty if there is none."""
    proxy = None if address.is_this_machine else getproxies().get(urlsplit(address.root).scheme)
    if proxy is None or proxy_bypass(address.host):
        return ""
    return f" through the proxy {sanitise_line(proxy.rpartition('//')[2].rpartition('@')[2])}"


def words_of(body: Any, key: str | None = None) -> str:
    """The words of a server about an error; it may write them in any of four ways."""
    if isinstance(body, Mapping):
        inner = body.get("error", body.get("detail", body.get("message")))
        if isinstance(inner, Mapping):
            inner = inner.get("message") or inner.get("type")
        text = inner if isinstance(inner, str) else json.dumps(inner if inner is not None else body)
    else:
        text = "" if body is None else str(body)
        text = "" if "<html" in text.lower() or "<!doctype" in text.lower() else text
    if key:
        text = text.replace(key, "…")
    text = sanitise_line(text).rstrip(".")
    return text if len(text) <= QUOTED_CHARACTERS else f"{text[: QUOTED_CHARACTERS - 1]}…"


def _code(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, Mapping) else None
    return f"{error.get('code')} {error.get('type')}" if isinstance(error, Mapping) else ""


def _too_long(where: str, body: Any, words: str) -> str:
    error = body.get("error", body) if isinstance(body, Mapping) else {}
    error = error if isinstance(error, Mapping) else {}
    counted = LENGTH.search(words)
    length = _whole(error.get("n_prompt_tokens")) or (int(counted["length"]) if counted else None)
    limit = _whole(error.get("n_ctx")) or _matched(LIMIT, words)
    if limit is None:
        return f"The conversation is too long for {where} ({words}). Start a new chat with /new, or attach less."
    reply = _matched(COMPLETION, words) or 0
    if length and length > reply:
        length -= reply
    if length and reply and length < limit:
        return (
            f"The conversation has {length:,} tokens, and with {reply:,} more for the reply it is too long for "
            f"{where}, whose context is {limit:,} tokens. Allow fewer with --max-tokens, or start a new chat with "
            "/new."
        )
    at_least = "at least " if counted and counted["at_least"] else ""
    has = f" has {at_least}{length:,} tokens and" if length else ""
    return (
        f"The conversation{has} is too long for {where}, whose context is {limit:,} tokens. Start a new chat with "
        "/new, or attach less."
    )


def _matched(pattern: re.Pattern[str], words: str) -> int | None:
    match = pattern.search(words)
    return int(match[1]) if match else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _wait(headers: Mapping[str, str]) -> str:
    """What Retry-After asks for: seconds, or a date."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        seconds = int(text)
    else:
        try:
            seconds = round((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
        except (ValueError, TypeError):
            return ""
    return f" It asks to wait {seconds:,} seconds; send again then." if seconds > 0 else ""


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _words(causes: list[BaseException]) -> str:
    """Of the innermost cause that has any."""
    texts = [_text_of(cause) for cause in causes]
    return next((text.rstrip(".") for text in reversed(texts) if text), type(causes[0]).__name__)


def _text_of(cause: BaseException) -> str:
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
        return os.strerror(cause.errno)
    return sanitise_line(str(cause))
