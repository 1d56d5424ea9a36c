"""Pulls models and shows how: a progress line on a terminal, a line per step in a pipe, JSON for programs."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path

import msgspec

from app.core.downloads import progress_line
from app.system.console import MovingLine, say_json
from app.text import figures
from models.errors import PullError
from models.pull import (
    Listed,
    Pull,
    PullEvent,
    PullFailed,
    PullFinished,
    PullJob,
    PullProgress,
    RepoPulled,
    RepoRevision,
    Scope,
    Waiting,
)


def pull(
    requests: Sequence[RepoRevision],
    cache: Path,
    scope: Scope = "everything",
    is_offline: bool = False,
    show: str = "line",
    is_insisting: bool = False,
) -> list[Listed]:
    """Pull models. Returns what the hub listed. Raises PullError; ctrl+c stops at once.

    show: line, json or nothing. is_insisting: pull even if the disk seems to have no room.
    """
    inbox: queue.SimpleQueue[PullEvent] = queue.SimpleQueue()
    job = PullJob(tuple(requests), str(cache), scope, is_offline, is_insisting=is_insisting)
    running = Pull(job, inbox.put)
    display = _Display(show)
    listed: list[Listed] = []
    running.start()
    try:
        while not isinstance(event := inbox.get(), PullFinished):
            display.add(event)
            if isinstance(event, Listed):
                listed.append(event)
            if isinstance(event, PullFailed):
                raise PullError(event.reason, event.message)
        display.add(event)
    finally:
        running.cancel()
        display.close()
    return listed


class _Display:
    def __init__(self, show: str) -> None:
        self._show = show
        self._line = MovingLine()
        self._file = ""

    def add(self, event: PullEvent) -> None:
        if self._show == "json":
            say_json(msgspec.json.encode(event).decode())
        elif self._show == "line":
            self._say(event)

    def close(self) -> None:
        self._line.close()

    def _say(self, event: PullEvent) -> None:
        match event:
            case Listed():
                have = f", {figures.size(event.present_bytes).strip()} already here" if event.present_bytes else ""
                self._line.say(
                    f"{event.repo} at {event.commit[:12]}: {figures.size(event.total_bytes).strip()}{have}"
                )
            case PullProgress() if self._line.is_terminal:
                self._line.move(progress_line(event))
            case PullProgress() if event.file != self._file:
                self._file = event.file
                self._line.say(f"{event.file} ({figures.size(event.file_total_bytes).strip()})")
            case Waiting():
                then = f"; retrying in {event.wait_s:.0f} s" if event.wait_s else ""
                self._line.say(f"{event.file or event.repo}: {event.why}{then}")
            case RepoPulled():
                self._line.say(f"{event.repo} is complete: {event.folder}")
