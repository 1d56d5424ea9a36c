"""`slipstream launch`: runs an agent with everything set for it to use this server."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.shell.agents import AGENTS, Endpoint, Setup
from app.system import places
from app.system.console import tell, warn
from app.system.running_server import RunningServer, find_server
from mlx_engine.protocol.errors import SlipstreamError

SIGNAL_BASE = 128
"""Shells give the exit status of a program that a signal ended as this and the signal's number."""
SERVE = (sys.executable, "-P", "-m", "app.cli", "serve", "--port", "0")
LOOK_S = 0.1
"""Between two looks for a server that is being started."""
END_S = 20.0
"""How long a program may take to end."""
LOOPBACK = ("127.0.0.1", "localhost")


def add_parser(subparsers: Any) -> None:
    """Register `launch`. What stands behind `--` is not for this parser: see `cut`."""
    parser = subparsers.add_parser(
        "launch",
        help="run an agent that uses this server, which is started if none runs",
        epilog="Arguments after -- are the agent's own, as in: slipstream launch claude -- --continue",
    )
    parser.add_argument("agent", choices=tuple(AGENTS), help="the agent to run")
    parser.add_argument("--model", metavar="MODEL", help="the model of a server that is started")
    parser.set_defaults(command=_launch)


def cut(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of `slipstream launch`, and those of the agent."""
    if argv[:1] != ["launch"] or "--" not in argv:
        return list(argv), []
    at = list(argv).index("--")
    return list(argv[:at]), list(argv[at + 1 :])


def _launch(options: argparse.Namespace) -> int:
    program_of(options.agent)
    with _server(options.model) as server:
        return run_agent(options.agent, Endpoint.of(server), options.agents_own)


def program_of(name: str) -> str:
    """The path of an agent's program. Raises SlipstreamError if it is not installed."""
    if path := shutil.which(name):
        return path
    raise SlipstreamError(
        f"{name} is not installed. Install it with `{AGENTS[name].install}`, and run this again."
    )


def run_agent(name: str, endpoint: Endpoint, arguments: Sequence[str]) -> int:
    """Run an agent in the foreground until it ends. Returns its exit status, as a shell gives it.

    Raises SlipstreamError.
    """
    program = program_of(name)
    _check_room(name, endpoint)
    with tempfile.TemporaryDirectory(prefix="slipstream-") as folder:
        setup = AGENTS[name].set_up(endpoint, Path(folder), arguments)
        for file, content in setup.files.items():
            Path(folder, file).write_text(content, encoding="utf-8")
        if setup.note:
            tell(setup.note)
        with _interrupts_left_to_the_agent():
            return _status(_started([program, *setup.arguments, *arguments], setup))


def _check_room(name: str, endpoint: Endpoint) -> None:
    """Raise SlipstreamError where an agent would be refused at its first request, which not all take as an end."""
    own_tokens = AGENTS[name].own_tokens
    if endpoint.context_tokens <= own_tokens:
        raise SlipstreamError(
            f"{name} has no room in a context of {endpoint.context_tokens:,} tokens: its own instructions and "
            f"tools take {own_tokens:,}. Use a model with a longer context, or a smaller agent, such as pi."
        )


@contextmanager
def _server(model: str | None) -> Iterator[RunningServer]:
    """The server that runs, or one that runs until the end of this. Raises SlipstreamError."""
    if server := find_server(places.server_file()):
        if model is not None and model != server.model:
            warn(
                f"the server that runs has {server.model}, and is used as it is. End it to start one with {model}."
            )
        yield server
        return
    with tempfile.TemporaryFile() as output:
        command = (*SERVE, *(() if model is None else ("--model", model)))
        tell("Starting a server, which ends with the agent.")
        # In a session of its own, so that ctrl+c in the agent does not end it.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield _announced(process, output)
        finally:
            _end(process)


def _announced(process: subprocess.Popen[bytes], output: Any) -> RunningServer:
    """The server of this process, once it answers. output: what it has printed. Raises SlipstreamError."""
    while process.poll() is None:
        server = find_server(places.server_file())
        if server and server.process_id == process.pid:
            return server
        time.sleep(LOOK_S)
    output.seek(0)
    said = output.read().decode("utf-8", "replace").strip()
    raise SlipstreamError(f"The server did not start. It said:\n{said}")


def _started(command: Sequence[str], setup: Setup) -> subprocess.Popen[bytes]:
    # A person's proxy cannot reach this machine's loopback address.
    direct = {name: ",".join(filter(None, (os.environ.get(name), *LOOPBACK))) for name in ("NO_PROXY", "no_proxy")}
    try:
        return subprocess.Popen(command, env=os.environ | direct | setup.variables)
    except OSError as error:
        raise SlipstreamError(f"{command[0]} cannot be run: {error.strerror}.") from None


def _status(agent: subprocess.Popen[bytes]) -> int:
    """Wait for the agent, which ends with this program."""
    try:
        code = agent.wait()
    except BaseException:
        _end(agent)
        raise
    return code if code >= 0 else SIGNAL_BASE - code


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _interrupts_left_to_the_agent() -> Iterator[None]:
    """ctrl+c reaches every program of a terminal's foreground; what it means is for the agent to say."""
    # A handler, not SIG_IGN: a program that is started does not inherit it.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
