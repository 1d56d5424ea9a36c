"""The download's process: `python -m models.download_worker`, a job on standard input, events on standard output.

Ends when the job is done, or when standard input does: then the parent is gone.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from models import hub_cache
from models.catalog import check_repo, check_revision
from models.download import AGAIN, DownloadEvent, Failed, Fetched, Finished, Job
from models.errors import PullError

FULL_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
READ_BYTES = 1 << 16

Emit = Callable[[DownloadEvent], None]


def answer(job: Job, emit: Emit) -> None:
    """Do the job; its last event is Finished or Failed."""
    try:
        for wanted in job.wanted:
            check_repo(wanted.repo)
            check_revision(wanted.revision or "main")
        if job.is_offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
            _answer_offline(job, emit)
            return
        # Not before here: offline does not even load the network.
        from models.fetch import Worker
        from models.hub import Hub

        Worker(job, emit, Hub(job.timeout_s)).run()
    except PullError as error:
        emit(Failed(error.reason, str(error)))
    except OSError as error:
        emit(Failed("disk", _disk_words(error, job.cache)))


def _answer_offline(job: Job, emit: Emit) -> None:
    for wanted in job.wanted:
        found = hub_cache.find_snapshot(Path(job.cache), wanted.repo, wanted.revision)
        if found is None or not found.is_complete:
            raise PullError(
                "offline", f"{wanted.repo} is not complete on this machine, and offline mode is on. Unset "
                "HF_HUB_OFFLINE or leave out --offline to fetch it."
            )  # fmt: skip
        emit(Fetched(wanted.repo, found.commit, str(found.folder)))
    emit(Finished())


def _disk_words(error: OSError, cache: str) -> str:
    place = error.filename or cache
    if error.errno in FULL_DISK:
        return f"The disk of {cache} is full. Make room (`slipstream models rm`). {AGAIN}"
    return f"{place} cannot be written: {error.strerror or error}. Correct that. {AGAIN}"


def _end_with_parent() -> None:
    # Not through Python's own buffer, which the end of the interpreter would find locked.
    while os.read(sys.stdin.fileno(), READ_BYTES):
        pass
    os._exit(1)


def main() -> None:
    """Serve one job."""
    # The terminal sends ctrl+c to the whole group; only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The library would ask its hub once a day for more than was asked of it.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Libraries print; on the real standard output that would be taken for an event.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()

    def emit(event: DownloadEvent) -> None:
        out.write(msgspec.json.encode(event) + b"\n")
        out.flush()

    answer(job, emit)


if __name__ == "__main__":
    main()
