"""What an evening has to bear: an engine that stands still, a full disk, a second window on the same chat."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.app.core.window import window
from tests.paths import ROOT


class Disk:
    """Full for this process: it can write no byte to any file. The engine's process is not concerned."""

    def __init__(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.is_full = False

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._limits[1]))
        self.is_full = True

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        self.is_full = False


@contextmanager
def standing_still(process_id: int | None) -> Iterator[None]:
    """While open, a process is stopped: what it is sent waits."""
    assert process_id is not None
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


def look_in(home: Path) -> None:
    """What other programs do meanwhile: list and export the chats."""
    for arguments in (["list"], ["export", "--json"]):
        program = [
            sys.executable,
            "-c",
            "import sys; from app.cli import main; sys.exit(main())",
            "chats",
            *arguments,
        ]
        environment = {**os.environ, "SLIPSTREAM_HOME": str(home)}
        subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, check=True)


def try_to_go_on(path: Path, chat_id: int) -> str:
    """Open a chat in a second window, and go on with its last reply. Returns what that says."""
    with window(path) as second:
        second.run(f"conversation.open({chat_id})")
        return second.run("conversation.go_on()")
