"""A pull as the front end sees it: one job, the child process that does it, and typed events.

Only a child process can be stopped at any byte without leaving anything behind. What has arrived stays in the
hub's cache, and the next pull of the same file resumes from there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Literal

import msgspec

from mlx_engine.protocol.errors import how_ended
from models.awake import staying_awake
from models.errors import Reason
from models.hub_cache import FileFacts

CANCEL_TIMEOUT_S = 0.5
RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
RESERVE_BYTES = 1 << 30
"""Disk space that a pull leaves free."""

REPORT_EVERY_S = 0.1
MAX_ERROR_BYTES = 4096
MAX_ERROR_CHARACTERS = 300
"""Of what a broken pull process printed last, in the message."""

Scope = Literal["listing", "description", "everything"]


class RepoRevision(msgspec.Struct, frozen=True):
    """One repository at one revision; None means its main branch."""

    repo: str
    revision: str | None = None


class PullJob(msgspec.Struct, frozen=True):
    """What to pull, and how patiently."""

    repos: tuple[RepoRevision, ...]
    cache: str
    scope: Scope = "everything"
    """`listing` asks the hub and writes nothing; `description` pulls everything but the weights."""
    is_offline: bool = False
    timeout_s: float = 20.0
    retry_waits_s: tuple[float, ...] = RETRY_WAITS_S
    """Pauses between attempts that brought no bytes; after the last attempt the pull ends."""
    reserve_bytes: int = RESERVE_BYTES
    is_insisting: bool = False
    """Pull even if the disk seems to have no room."""
    report_every_s: float = REPORT_EVERY_S


class Listed(msgspec.Struct, frozen=True, tag="listed"):
    """The hub has listed a revision."""

    repo: str
    commit: str
    files: dict[str, FileFacts]
    """Everything that the hub lists; only some of it is pulled."""
    total_bytes: int
    """Size of the files that this job pulls from this repository."""
    present_bytes: int
    """The part of it that is on this machine already, including partial files."""


class PullProgress(msgspec.Struct, frozen=True, tag="progress"):
    """How far the pull is. Totals cover all repositories of the job, and never shrink for a resumed file."""

    repo: str
    file: str
    file_done_bytes: int
    file_total_bytes: int
    done_bytes: int
    total_bytes: int
    rate_bytes_per_s: float | None
    """Over the last seconds; None before there are two measurements."""
    left_s: float | None
    is_checking: bool
    """A partial file is being read and hashed before it is resumed."""


class Waiting(msgspec.Struct, frozen=True, tag="waiting"):
    """Nothing arrives for now; `why` is a clause."""

    repo: str
    file: str
    why: str
    wait_s: float | None
    """Until the next attempt; None if that depends on another process."""


class RepoPulled(msgspec.Struct, frozen=True, tag="pulled"):
    """One repository is complete, at this commit, in this folder."""

    repo: str
    commit: str
    folder: str


class PullFinished(msgspec.Struct, frozen=True, tag="finished"):
    """The job is done."""


class PullFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The job ended without success; the message says what to do."""

    reason: Reason
    message: str


PullEvent = Listed | PullProgress | Waiting | RepoPulled | PullFinished | PullFailed
OnEvent = Callable[[PullEvent], None]


class Pull:
    """One job in its child process. `on_event` is called on this object's own thread."""

    def __init__(self, job: PullJob, on_event: OnEvent) -> None:
        self._job = job
        self._on_event = on_event
        self._child: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._is_cancelled = False

    def start(self) -> None:
        """Returns at once. The last event is PullFinished or PullFailed, unless the pull is cancelled."""
        try:
            self._child, errors = self._start_child()
        except OSError as error:
            failed = PullFailed("died", f"The pull process could not be started: {error}.")
            self._run_on_thread(lambda: self._on_event(failed))
            return
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(msgspec.json.encode(self._job) + b"\n")
            self._child.stdin.flush()
        except OSError:
            pass  # it ended at once; its exit status tells why
        child = self._child
        self._run_on_thread(lambda: self._read_awake(child, errors))

    def _start_child(self) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        """The process, and the file with what it prints when it breaks off. Raises OSError."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (the thread that reads closes it)
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "models.pull_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError:
            errors.close()
            raise
        return child, errors

    def _run_on_thread(self, run: Callable[[], None]) -> None:
        self._reader = threading.Thread(target=run, name="pull-events", daemon=True)
        self._reader.start()

    def cancel(self) -> None:
        """Stop, and return when process and thread have ended. What has arrived is kept for the next pull."""
        self._is_cancelled = True
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(CANCEL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join()

    def wait(self) -> None:
        """Block until the last event has been passed on."""
        if self._reader is not None:
            self._reader.join()

    @property
    def process_id(self) -> int | None:
        """The child's."""
        return self._child.pid if self._child else None

    def _read_awake(self, child: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        with staying_awake(child.pid):
            self._read(child, errors)

    def _read(self, child: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        """errors: what the child prints when it breaks off."""
        assert child.stdout is not None
        assert child.stdin is not None
        decoder = msgspec.json.Decoder(PullEvent)
        is_over = False
        how = ""
        try:
            for line in child.stdout:
                event = decoder.decode(line)
                is_over = isinstance(event, PullFinished | PullFailed)
                if not self._is_cancelled:
                    self._on_event(event)
        except msgspec.DecodeError as error:
            child.kill()
            how = f"sent something else than a report ({error}), and was ended"
        status = child.wait()
        child.stdout.close()
        try:
            child.stdin.close()
        except OSError:
            pass  # it ended before it read the job
        if not is_over and not self._is_cancelled:
            how = how or f"ended {how_ended(status)}{_last_line(errors)}"
            self._on_event(PullFailed("died", f"The pull process {how}. {AGAIN}"))
        errors.close()


AGAIN = "Pull again to resume: what has arrived is kept."


def _last_line(errors: IO[bytes]) -> str:
    """The last line of a file, which names the error of an unforeseen end; for the end of a clause."""
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - MAX_ERROR_BYTES))
    lines = errors.read().decode("utf-8", "replace").split("\n")
    last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
    return f": {last[:MAX_ERROR_CHARACTERS].rstrip('.')}" if last else ""
