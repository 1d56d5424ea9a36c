"""Downloads as the front end sees them: one job, a child process that does it, and typed events about it.

A child process, because only that can be stopped at any byte without leaving anything behind. What has come is
kept in the hub's cache, and the next download of the same file goes on from there.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Literal

import msgspec

from models.errors import Reason
from models.hub_cache import FileFacts

CANCEL_TIMEOUT_S = 0.5
RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
RESERVE_BYTES = 1 << 30
"""Disk space that a download leaves to everything else."""

REPORT_EVERY_S = 0.1

Scope = Literal["listing", "description", "everything"]


class Wanted(msgspec.Struct, frozen=True):
    """One repository at one revision; None is its main branch."""

    repo: str
    revision: str | None = None


class Job(msgspec.Struct, frozen=True):
    """What to fetch, and how patiently."""

    wanted: tuple[Wanted, ...]
    cache: str
    scope: Scope = "everything"
    """`listing` asks the hub and writes nothing; `description` fetches all but the weights."""
    is_offline: bool = False
    timeout_s: float = 20.0
    retry_waits_s: tuple[float, ...] = RETRY_WAITS_S
    """Pauses between tries that brought nothing; after the last one the download ends."""
    reserve_bytes: int = RESERVE_BYTES
    report_every_s: float = REPORT_EVERY_S


class Listed(msgspec.Struct, frozen=True, tag="listed"):
    """The hub has said what a revision is."""

    repo: str
    commit: str
    files: dict[str, FileFacts]
    """All that the hub lists; only some of it is fetched."""
    total_bytes: int
    """Of the files that this job fetches of this repository."""
    present_bytes: int
    """Of these on this machine already, unfinished ones included."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Where the download is. Totals run over all repositories of the job and never go back for a resumed file."""

    repo: str
    file: str
    file_done_bytes: int
    file_total_bytes: int
    done_bytes: int
    total_bytes: int
    rate_bytes_per_s: float | None
    """Over the last seconds; None before anything can be said."""
    left_s: float | None
    is_checking: bool
    """Reading what is there, to go on from it, instead of fetching."""


class Waiting(msgspec.Struct, frozen=True, tag="waiting"):
    """Nothing comes for the moment, and why."""

    repo: str
    file: str
    why: str
    wait_s: float | None
    """Until the next try; None if that depends on another process."""


class Fetched(msgspec.Struct, frozen=True, tag="fetched"):
    """One repository is complete, at this commit, in this folder."""

    repo: str
    commit: str
    folder: str


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The job is done."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The job ended without success; the message says what to do."""

    reason: Reason
    message: str


DownloadEvent = Listed | Progress | Waiting | Fetched | Finished | Failed
OnEvent = Callable[[DownloadEvent], None]


class Download:
    """One job in its child process. `on_event` is called on a thread of this object's."""

    def __init__(self, job: Job, on_event: OnEvent) -> None:
        self._job = job
        self._on_event = on_event
        self._child: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._is_cancelled = False

    def start(self) -> None:
        """Begin; returns at once. The last event is Finished or Failed, unless it is cancelled."""
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "models.download_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            failed = Failed("died", f"The download's process could not be started: {error}.")
            self._tell_on_thread(lambda: self._on_event(failed))
            return
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(msgspec.json.encode(self._job) + b"\n")
            self._child.stdin.flush()
        except OSError:
            pass  # it ended at once; its exit status says why
        child = self._child
        self._tell_on_thread(lambda: self._read(child))

    def _tell_on_thread(self, tell: Callable[[], None]) -> None:
        self._reader = threading.Thread(target=tell, name="download-events", daemon=True)
        self._reader.start()

    def cancel(self) -> None:
        """Stop now; returns when neither process nor thread is left. What has come is kept for the next time."""
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
        """Until the last event has been told."""
        if self._reader is not None:
            self._reader.join()

    @property
    def process_id(self) -> int | None:
        """The child's, for those who watch it."""
        return self._child.pid if self._child else None

    def _read(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        assert child.stdin is not None
        decoder = msgspec.json.Decoder(DownloadEvent)
        is_over = False
        try:
            for line in child.stdout:
                event = decoder.decode(line)
                is_over = isinstance(event, Finished | Failed)
                if not self._is_cancelled:
                    self._on_event(event)
        except msgspec.DecodeError:
            child.kill()
        status = child.wait()
        child.stdout.close()
        try:
            child.stdin.close()
        except OSError:
            pass  # it was gone before it read the job
        if not is_over and not self._is_cancelled:
            self._on_event(Failed("died", f"The download's process ended {_how(status)}. {AGAIN}"))


AGAIN = "Pull again to go on: what has come is kept."


def _how(status: int) -> str:
    return f"by signal {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
