"""`slipstream servers`: find servers on this machine, test one, and keep its key in the keychain."""

from __future__ import annotations

import argparse
import getpass
import json
import queue
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.core.reply_facts import ReplyFacts
from app.core.turn_stats import spoken_line, turn_stats
from app.remote.address import ServerAddress, ServerError, parse_address
from app.remote.connection import Served
from app.remote.engine import RemoteEngine, check_installed
from app.remote.finding import find_servers, look_at
from app.remote.keys import key_for, store_key
from app.remote.kinds import ServerKind
from app.system import console
from app.system.console import say, say_json
from app.system.exit_codes import FAILED, OK
from app.text.sanitise import sanitise_line
from mlx_engine.client import raise_if_failed
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Finished, Generate, Load, Message, Notice, Part, Ready, SamplingOptions

TEST_PROMPT = "Count from 1 up to 10"
TEST_TOKENS = 32
TEST_SILENCE_S = 120.0
"""Longer than a server takes to load a model for the first request."""


def add_parser(subparsers: Any) -> None:
    """Register `servers` and its commands."""
    parser = subparsers.add_parser("servers", help="find servers on this machine, test one, keep its key")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    finding = commands.add_parser(
        "list", help="find servers at the usual ports of this machine (same as `slipstream servers` alone)"
    )
    finding.add_argument("--json", action="store_true", help="print JSON")
    finding.set_defaults(command=list_servers)
    test = commands.add_parser("test", help="ask a server what it is, and for one short reply")
    test.add_argument("--model", metavar="NAME", help="one of its models (default: the one that it has loaded)")
    test.set_defaults(command=test_server)
    key = commands.add_parser("key", help="keep the key of a server in the system's keychain")
    key.set_defaults(command=keep_key)
    for command in (test, key):
        command.add_argument("url", metavar="URL", help="its address, such as http://studio.local:8765")


def list_servers(options: argparse.Namespace) -> int:
    """Print what answers at the usual ports."""
    found = find_servers()
    if options.json:
        rows = [
            {
                "url": each.address.url,
                "name": each.served.kind.name if each.served else None,
                "models": [model.id for model in each.served.models] if each.served else [],
                "problem": each.problem or None,
            }
            for each in found
        ]
        say_json(json.dumps(rows, ensure_ascii=False))
        return OK
    for each in found:
        if each.served is None:
            say(f"{each.address.root}  {each.problem}")
            continue
        names = ", ".join(sanitise_line(model.id) for model in each.served.models) or "lists no models"
        say(f"{each.address.root}  {each.served.kind.name}: {names}")
    if found:
        say("Chat with one: slipstream --server URL. What one can do: slipstream servers test URL.")
    else:
        say("No server answers at the usual ports of this machine. Name another with `slipstream --server URL`.")
    return OK


def test_server(options: argparse.Namespace) -> int:
    """Print what a server says about itself, what it can do, and how one short reply went."""
    check_installed()
    address = parse_address(options.url)
    served = look_at(address, key_for(address))
    model = served.model(options.model, address)
    say(f"{address.url}: {served.kind.name}")
    for line in _abilities(served):
        say(f"  {line}")
    context = f"{model.context_tokens:,} tokens" if model.context_tokens else "the server does not say"
    say(f"  context: {context}")
    say(f"Asking {sanitise_line(model.id)} for a short reply.")
    try:
        tested = _short_reply(address, model.id)
    except SlipstreamError as error:
        console.warn(str(error))
        return FAILED
    say(f"  {sanitise_line(tested.text) or '(no text)'}")
    say(f"  {tested.line}")
    return OK


def keep_key(options: argparse.Namespace) -> int:
    """Read a key without showing it, and keep it."""
    address = parse_address(options.url)
    if console.is_terminal(sys.stdin):
        key = getpass.getpass(f"Key of {address.shown}: ").strip()
    else:
        key = sys.stdin.readline().strip() if sys.stdin else ""
    if not key:
        raise ServerError("No key was given, so nothing was changed.")
    store_key(address, key)
    say(f"The key of {address.shown} is in the keychain.")
    return OK


def _abilities(served: Served) -> Iterator[str]:
    kind = served.kind
    names = [sanitise_line(model.id) for model in served.models]
    yield f"models: {', '.join(names) or 'it does not list them'}"
    yield f"drafting: {'on and off per request, so /ab works' if kind.can_switch_drafting else kind.why_fixed}"
    yield f"thinking: {'on and off per request' if kind.thinking else 'as the server is set'}"
    yield f"/continue: {_continuing(kind)}"
    yield f"--schema: {'passed on' if kind.obeys_schemas else 'not kept to, so it is refused here'}"
    yield f"sampling: {', '.join(['temp', 'top_p', 'seed', *kind.samplers])}"
    if kind.warning:
        yield f"note: {kind.warning}"


def _continuing(kind: ServerKind) -> str:
    return "the server goes on" if kind.continues is not None else "the model is asked to go on, in words"


@dataclass(frozen=True, slots=True)
class _Tested:
    """One short reply."""

    text: str
    line: str
    """Its figures."""


def _short_reply(address: ServerAddress, model: str) -> _Tested:
    """Raises SlipstreamError."""
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    engine = RemoteEngine(address, Load(target=model))
    engine.on_event = inbox.put
    facts, ready = ReplyFacts(), None
    messages = (Message("user", TEST_PROMPT),)
    try:
        engine.generate(Generate(1, messages, SamplingOptions(temperature=0.0), max_tokens=TEST_TOKENS))
        while facts.finished is None:
            try:
                event = inbox.get(timeout=TEST_SILENCE_S)
            except queue.Empty:
                raise ServerError(f"{address.shown} sent nothing for {TEST_SILENCE_S:.0f} seconds.") from None
            raise_if_failed(event)
            match event:
                case Ready():
                    ready = event
                case Notice(message=message):
                    console.warn(message)
                case Part() | Finished():
                    facts.add(event)
    finally:
        engine.close()
    return _Tested(facts.text, spoken_line(turn_stats(facts, ready)))
