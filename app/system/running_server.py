"""Where `slipstream serve` runs on this machine, for programs that want to use it: a small private file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from app.system.processes import start_of, this_machine
from mlx_engine.files.atomic import replace_file


class RunningServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that answers."""

    url: str
    """Without a path: `http://127.0.0.1:8765`."""
    model: str
    context_tokens: int
    key: str | None
    """What it wants to be asked with; None: anything."""
    version: str
    process_id: int
    process_start: str | None
    """As `start_of` says, so that another process with its id is not taken for it."""
    machine: str
    before: RunningServer | None = None
    """The one that was found until this one was announced."""

    @classmethod
    def this_process(
        cls, url: str, model: str, context_tokens: int, key: str | None, version: str
    ) -> RunningServer:
        """The server of this process."""
        process_id = os.getpid()
        return cls(
            url=url,
            model=model,
            context_tokens=context_tokens,
            key=key,
            version=version,
            process_id=process_id,
            process_start=start_of(process_id),
            machine=this_machine(),
        )

    @property
    def is_running(self) -> bool:
        """Whether its process is still there."""
        started = start_of(self.process_id)
        return self.machine == this_machine() and started is not None and started == self.process_start


def can_be_sent(key: str) -> bool:
    """Whether the header of a request can carry it as it is."""
    return key.isascii() and key.isprintable() and " " not in key


def find_server(path: Path) -> RunningServer | None:
    """The server that runs on this machine; None if there is none."""
    try:
        server = msgspec.json.decode(path.read_bytes(), type=RunningServer)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return server if server.is_running else None


def announce(path: Path, server: RunningServer) -> None:
    """Let other programs find it. The latest one is found. Raises OSError."""
    found = find_server(path)
    if found is not None:
        before = found.before if found.process_id == server.process_id else found
        server = msgspec.structs.replace(server, before=before and msgspec.structs.replace(before, before=None))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, msgspec.json.encode(server))


def withdraw(path: Path) -> None:
    """Remove what this process has announced, if no other one has since. The one before it is found again."""
    with suppress(OSError):
        server = find_server(path)
        if server is None or server.process_id != os.getpid():
            return
        if server.before is not None and server.before.is_running:
            replace_file(path, msgspec.json.encode(server.before))
        else:
            path.unlink()
