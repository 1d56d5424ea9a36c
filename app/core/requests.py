"""The requests that a server answers beside the chat, in words and figures for every front end."""

from __future__ import annotations

from collections.abc import Sequence

from app.core.current_pair import CurrentPair
from app.remote.address import parse_address
from app.remote.kinds import SLIPSTREAM
from app.remote.requests import ServedRequest, ServerRequests
from app.system import places
from app.system.running_server import find_server
from app.text.figures import percent, share_of, thousands
from app.text.sanitise import sanitise_line

NO_SERVER_RUNS = (
    "No server runs on this machine. `slipstream launch claude` starts one and an agent that uses it; "
    "`slipstream serve` starts one alone."
)
NO_REQUESTS = "No requests yet. `slipstream launch claude` runs an agent that uses this model."
CHAT = "slipstream"
"""The program that asks for a chat."""


def requests_beside(pair: CurrentPair) -> ServerRequests | None:
    """Those of the server that makes the replies if it is Slipstream's, else of one that runs here; None: there is
    none."""
    if (own := requests_of_pair(pair)) is not None:
        return own
    server = find_server(places.server_file())
    return ServerRequests(parse_address(server.url)) if server else None


def requests_of_pair(pair: CurrentPair) -> ServerRequests | None:
    """Those of the server that makes the replies; None: no `slipstream serve` makes them."""
    server = pair.ready.server if pair.ready else None
    is_slipstream = server is not None and server.name == SLIPSTREAM.name
    return ServerRequests(pair.choice.server) if is_slipstream and pair.choice.server else None


def ordered(requests: Sequence[ServedRequest]) -> list[ServedRequest]:
    """Those that wait or run as the server has them, then the latest that ended."""
    ended = [request for request in requests if request.has_ended]
    return [*(request for request in requests if not request.has_ended), *reversed(ended)]


def count_words(requests: Sequence[ServedRequest]) -> str:
    """`2 requests`: those of other programs that wait or run; empty if there are none."""
    count = sum(not request.has_ended and request.program != CHAT for request in requests)
    return f"{count} request{'s' * (count != 1)}" if count else ""


def program_of(request: ServedRequest) -> str:
    """Who asks, safe for a terminal."""
    return sanitise_line(request.program) or "?"


def state_of(request: ServedRequest) -> str:
    """`queued`, `reading 45%`, `writing`, `done`, `failed`."""
    if request.failed:
        return "failed"
    share = share_of(request.read_tokens, request.prompt_tokens)
    if request.state == "reading" and share is not None:
        return f"reading {percent(min(share, 1.0)).strip()}"
    return sanitise_line(request.state)


def cached_of(request: ServedRequest) -> str:
    """`11.8k/12.0k`: of the prompt's tokens, those that were kept."""
    return f"{thousands(request.cached_tokens)}/{thousands(request.prompt_tokens)}"


def age(seconds: float) -> str:
    """`42 s`, `3 min`, `1 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.0f} h"


def spoken(request: ServedRequest) -> str:
    """All of it in a sentence, for a screen reader."""
    parts = [program_of(request), state_of(request)]
    if request.tokens_per_s is not None:
        parts.append(f"{request.tokens_per_s:.1f} tokens per second")
    if request.acceptance is not None:
        parts.append(f"{request.acceptance:.0%} of the drafts accepted")
    parts.append(f"{request.cached_tokens:,} of {request.prompt_tokens:,} prompt tokens cached")
    parts.append(f"{'took' if request.has_ended else 'since'} {age(request.age_s)}")
    return ", ".join(parts) + "."
