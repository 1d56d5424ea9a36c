"""The process that pulls, `python -m models.pull_worker`: a job on standard input, events on standard output.

It ends with its job, or when standard input closes because the parent has ended.
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
from models.errors import PullError
from models.pull import AGAIN, PullEvent, PullFailed, PullFinished, PullJob, RepoPulled

FULL_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
READ_BYTES = 1 << 16

Emit = Callable[[PullEvent], None]


def answer(job: PullJob, emit: Emit) -> None:
    """Do the job. The last event is PullFinished or PullFailed."""
    try:
        for source in job.repos:
            check_repo(source.repo)
            check_revision(source.revision or "main")
        if job.is_offline or hub_cache.offline_variable(os.environ):
            _answer_offline(job, emit)
            return
        # Imported late: offline mode does not even load the network code.
        from models.hub import Hub
        from models.pull_files import Puller

        Puller(job, emit, Hub(job.timeout_s)).run()
    except PullError as error:
        emit(PullFailed(error.reason, str(error)))
    except OSError as error:
        emit(PullFailed("disk", _disk_message(error, job.cache)))


def _answer_offline(job: PullJob, emit: Emit) -> None:
    for source in job.repos:
        snapshot = hub_cache.find_snapshot(Path(job.cache), source.repo, source.revision)
        if snapshot is None or not snapshot.is_complete:
            raise PullError(
                "offline", f"{source.repo} is not complete on this machine, and offline mode is on. "
                f"To pull it, {_way_online()}."
            )  # fmt: skip
        emit(RepoPulled(source.repo, snapshot.commit, str(snapshot.folder)))
    emit(PullFinished())


def _way_online() -> str:
    variable = hub_cache.offline_variable(os.environ)
    return f"unset {variable}" if variable else "leave out --offline"


def _disk_message(error: OSError, cache: str) -> str:
    path = error.filename or cache
    if error.errno in FULL_DISK:
        return f"The disk of {cache} is full. Make room (`slipstream models rm`). {AGAIN}"
    return f"{path} cannot be written: {error.strerror or error}. Correct that. {AGAIN}"


def _end_with_parent() -> None:
    # Not through Python's buffer, whose lock this thread would hold when the interpreter ends.
    while os.read(sys.stdin.fileno(), READ_BYTES):
        pass
    os._exit(1)


def main() -> None:
    """Do the job on standard input."""
    # The terminal sends ctrl+c to the whole process group; only the parent decides what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The library would send requests of its own to its hub once a day.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Libraries print; on the real standard output, that would be read as an event.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=PullJob)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()

    def emit(event: PullEvent) -> None:
        out.write(msgspec.json.encode(event) + b"\n")
        out.flush()

    answer(job, emit)


if __name__ == "__main__":
    main()
