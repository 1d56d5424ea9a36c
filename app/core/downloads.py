"""Pulls: at most one at a time, which goes on while the person chats, and its progress as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from app.text import figures
from models.catalog import Source
from models.pull import Pull, PullEvent, PullFailed, PullFinished, PullJob, PullProgress, RepoRevision, Waiting

BAR_CELLS = 20
REPORT_S = 0.25

Report = Callable[[int, PullEvent], None]
"""Takes the number of a pull and what it reports, on the pull's own thread."""


class Downloads:
    """The pull that is running. `report` hands each event to the thread that owns this, which calls `hear`."""

    def __init__(self, report: Report, changed: Callable[[], None] = lambda: None) -> None:
        """changed: called after every change of what is shown here."""
        self.name = ""
        """The model that is being pulled; empty: none."""
        self.line = ""
        """How far it is, in a line."""
        self.brief = ""
        """The same in a few words, for the top line; empty while nothing is pulled."""
        self._report = report
        self._changed = changed
        self._number = 0
        self._without_room = ""
        """The model whose pull was refused for room; pulling it again insists."""
        self._pull: Pull | None = None

    @property
    def is_running(self) -> bool:
        return self._pull is not None

    def start(self, name: str, sources: Iterable[Source | None], cache: Path) -> None:
        """Pull these sources of the model `name`. Nothing else may be running."""
        repos = tuple(RepoRevision(source.repo, source.revision) for source in sources if source and source.repo)
        self._number += 1
        job = PullJob(repos, str(cache), is_insisting=name == self._without_room, report_every_s=REPORT_S)
        self._pull = Pull(job, partial(self._report, self._number))
        self._without_room = ""
        self.name, self.line, self.brief = name, "Contacting the hub", f"pulling {name}"
        self._pull.start()
        self._changed()

    def hear(self, number: int, event: PullEvent) -> bool:
        """Handle what a pull reports. False if it was stopped before."""
        if self._pull is None or number != self._number:
            return False
        match event:
            case PullProgress():
                share = event.done_bytes / event.total_bytes if event.total_bytes else 1.0
                self.line, self.brief = progress_line(event), f"pulling {self.name} {share:.0%}"
            case Waiting(why=why, wait_s=wait_s):
                again = f" Trying again in {time_left(wait_s)}." if wait_s else ""
                self.line, self.brief = f"Nothing arrives: {why.rstrip('.')}.{again}", f"retrying {self.name}"
            case PullFinished() | PullFailed():
                if isinstance(event, PullFailed) and event.reason == "room":
                    self._without_room = self.name
                self._pull, self.name, self.line, self.brief = None, "", "", ""
        self._changed()
        return True

    def stop(self) -> Callable[[], None]:
        """Forget the pull. Returns what ends its process, which takes a moment; its files are kept."""
        pull, self._pull = self._pull, None
        self.name = self.line = self.brief = ""
        self._changed()
        return pull.cancel if pull is not None else lambda: None


def progress_line(event: PullProgress) -> str:
    """Share of all files, rate, time left and share of this file, in fewer than 80 cells for usual names."""
    share = event.done_bytes / event.total_bytes if event.total_bytes else 1.0
    filled = int(share * BAR_CELLS)
    bar = "█" * filled + "░" * (BAR_CELLS - filled)
    file_share = event.file_done_bytes / event.file_total_bytes if event.file_total_bytes else 1.0
    activity = "checking " if event.is_checking else ""
    rate = f" {figures.size(int(event.rate_bytes_per_s)).strip()}/s" if event.rate_bytes_per_s else ""
    left = f" {time_left(event.left_s)}" if event.left_s is not None else ""
    return f"{bar} {share:4.0%}{rate}{left}  {activity}{event.file[-30:]} {file_share:.0%}"


def time_left(seconds: float) -> str:
    """`42 s`, `3 min`, `1 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
