"""`slipstream serve`: runs the server until ctrl+c."""

from __future__ import annotations

import argparse
import errno
import os
import socket
from collections.abc import Callable

from app import __version__
from app.core.pair_choice import PairChoice
from app.core.reply_options import ReplyOptions
from app.settings.flags import add_flags
from app.system import places
from app.system.console import Arguments, say, tell, warn
from app.system.exit_codes import OK
from app.system.running_server import RunningServer, announce, can_be_sent, withdraw
from mlx_engine.client import EngineClient
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Ready

HOST, PORT, MAX_PORT = "127.0.0.1", 8765, 65535
KEY_VARIABLE = "SLIPSTREAM_KEY"


def add_parser(commands: argparse._SubParsersAction[Arguments]) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = commands.add_parser("serve", help="answer editors and agents over the APIs of OpenAI and Anthropic")
    parser.add_argument(
        "--host", default=HOST, metavar="ADDRESS", help=f"where to listen (default: {HOST}, this machine alone)"
    )
    parser.add_argument("--port", type=_port, default=PORT, metavar="N", help=f"(default: {PORT})")
    parser.add_argument(
        "--key",
        default=os.environ.get(KEY_VARIABLE),
        metavar="KEY",
        help=f"answer only those who send this key; needed for other machines (or set {KEY_VARIABLE})",
    )
    add_flags(parser)
    return parser


def serve(options: argparse.Namespace, choose: Callable[[], PairChoice], usual: ReplyOptions) -> int:
    """Serve until ctrl+c. choose: the pair to load. usual: for what requests leave open.

    Returns the exit code. Raises SlipstreamError.
    """
    try:
        import uvicorn

        from app.serve.connections import allow_connections, uvicorn_options
        from app.serve.dialects import all_dialects
        from app.serve.guard import Policy
        from app.serve.server import Server
    except ImportError as error:
        raise SlipstreamError(
            f"serve needs {error.name}, which is not installed. Install Slipstream with its extra: "
            "`pip install --editable '.[serve]'`."
        ) from None
    policy = Policy(options.host, options.key or None)
    if not policy.is_loopback and policy.key is None:
        raise SlipstreamError(
            f"At {options.host} other machines can reach the server, so it needs a key: add --key KEY, or set "
            f"{KEY_VARIABLE}. Without --host it serves this machine alone."
        )
    if policy.key is not None and not can_be_sent(policy.key):
        raise SlipstreamError(
            "No program can send this key. Use letters without accents, digits and signs, and no spaces."
        )
    pair = choose()
    allow_connections()
    listening = _listen(options.host, options.port)
    url = _url(options.host, listening.getsockname()[1])
    engine = EngineClient(pair.load, places.engine_log())

    def tell_ready(ready: Ready) -> None:
        assert ready.context_tokens is not None, "only servers do not say it"
        server = RunningServer.this_process(url, ready.target, ready.context_tokens, policy.key, __version__)
        try:
            announce(places.server_file(), server)
        except OSError as error:
            warn(f"{places.server_file()} cannot be written ({error.strerror}), so the chat will not find it.")
        drafter = f", drafted by {ready.drafter}" if ready.drafter else ", without a drafter"
        say(f"{ready.target} is ready{drafter}. Context: {ready.context_tokens:,} tokens.")

    server = Server(engine, pair.load, all_dialects(), policy, usual, tell_ready)
    say(f"Slipstream serves {pair.load.name} at {url}. Press ctrl+c to end.")
    say(f"  OpenAI: {url}/v1  (chat/completions, completions, responses, models)")
    say(f"  Anthropic: {url}  (v1/messages)")
    try:
        uvicorn.Server(uvicorn.Config(server.app, **uvicorn_options())).run(sockets=[listening])
    finally:
        engine.close()
        withdraw(places.server_file())
        tell("The server has ended.")
    return OK


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no port. Use 1 to {MAX_PORT}, or 0 for any free one.")
    return int(text)


def _listen(host: str, port: int) -> socket.socket:
    """Raises SlipstreamError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except socket.gaierror as error:
        raise SlipstreamError(
            f"The server cannot listen at {host}: {error.strerror}. Name another address with --host."
        ) from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        flag = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
        raise SlipstreamError(
            f"The server cannot listen at {host}, port {port}: {why}. Choose another with {flag}."
        ) from None


def _url(host: str, port: int) -> str:
    """By which this machine reaches the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
