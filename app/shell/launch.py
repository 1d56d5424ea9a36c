"""`slipstream launch`: runs an agent with everything set for it to use this server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.shell.agents import AGENTS, Endpoint, Setup
from app.system.console import tell
from mlx_engine.protocol.errors import SlipstreamError

SIGNAL_BASE = 128
"""Shells give the exit status of a program that a signal ended as this and the signal's number."""


def program_of(name: str) -> str:
    """The path of an agent's program. Raises SlipstreamError if it is not installed."""
    agent = AGENTS[name]
    if path := shutil.which(agent.program):
        return path
    raise SlipstreamError(
        f"{agent.program} is not installed. Install it with `{agent.install}`, and run this again."
    )


def run_agent(name: str, endpoint: Endpoint, arguments: Sequence[str]) -> int:
    """Run an agent in the foreground until it ends. Returns its exit status, as a shell gives it.

    Raises SlipstreamError.
    """
    program = program_of(name)
    with tempfile.TemporaryDirectory(prefix="slipstream-") as folder:
        setup = AGENTS[name].set_up(endpoint, Path(folder), arguments)
        for file, content in setup.files.items():
            Path(folder, file).write_text(content, encoding="utf-8")
        if setup.note:
            tell(setup.note)
        with _interrupts_left_to_the_agent():
            return _status(_started([program, *setup.arguments, *arguments], setup))


def _started(command: Sequence[str], setup: Setup) -> subprocess.Popen[bytes]:
    own = {name: value for name, value in os.environ.items() if name not in setup.removed_variables}
    try:
        return subprocess.Popen(command, env=own | setup.variables)
    except OSError as error:
        raise SlipstreamError(f"{command[0]} cannot be run: {error.strerror}.") from None


def _status(agent: subprocess.Popen[bytes]) -> int:
    """Wait for the agent, which ends with this program."""
    try:
        code = agent.wait()
    except BaseException:
        agent.terminate()
        agent.wait()
        raise
    return code if code >= 0 else SIGNAL_BASE - code


@contextmanager
def _interrupts_left_to_the_agent() -> Iterator[None]:
    """ctrl+c reaches every program of a terminal's foreground; what it means is for the agent to say."""
    # A handler, not SIG_IGN: a program that is started does not inherit it.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
