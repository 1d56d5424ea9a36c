"""The list of requests as the chat beside the server shows it."""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from app.serve.answering import drafting_of
from app.serve.errors import ServeError
from app.serve.job import Job

KEPT = 20
"""Requests that have ended are shown for as long as few others come."""
UPDATE_S = 0.25
"""The list is sent at most so often while something changes."""
QUIET_S = 10.0
"""A sign of life when nothing does."""
NAME = re.compile(r"[\w.@+-]+(/[\w.+-]+)?", re.ASCII)
MAX_NAME_CHARACTERS = 40


def client_name(user_agent: str) -> str:
    """What a program calls itself at the start of its User-Agent; `?` if it says nothing that can be shown."""
    found = NAME.match(user_agent.strip())
    return found[0][:MAX_NAME_CHARACTERS] if found else "?"


class LiveRequests:
    """Requests that wait, run or ended lately. Belongs to the event loop."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._ended: deque[dict[str, Any]] = deque(maxlen=KEPT)
        """Only what is shown of them, for a request can be long."""
        self._watchers: set[asyncio.Event] = set()

    def note(self, job: Job) -> None:
        """Something about a job is new."""
        self._jobs[job.id] = job
        if job.outcome is not None:
            self._ended.append(_state(self._jobs.pop(job.id)))
        for watcher in self._watchers:
            watcher.set()

    def find(self, id: str) -> Job | None:
        """The job with this id, unless it has ended."""
        return self._jobs.get(id)

    @property
    def states(self) -> list[dict[str, Any]]:
        """All requests, those that have ended first."""
        return [*self._ended, *map(_state, self._jobs.values())]

    @property
    def running(self) -> int:
        """How many requests the engine works on."""
        return sum(job.state in ("reading", "writing") for job in self._jobs.values())

    async def changes(self) -> AsyncIterator[bytes]:
        """Server-sent events: the list now, and whenever it has changed."""
        watcher = asyncio.Event()
        self._watchers.add(watcher)
        try:
            while True:
                yield b"data: " + json.dumps({"requests": self.states}).encode() + b"\n\n"
                watcher.clear()
                await asyncio.sleep(UPDATE_S)
                while not watcher.is_set():
                    try:
                        async with asyncio.timeout(QUIET_S):
                            await watcher.wait()
                    except TimeoutError:
                        yield b": quiet\n\n"
        finally:
            self._watchers.discard(watcher)


def _state(job: Job) -> dict[str, Any]:
    drafting = drafting_of(job, None)
    stats = job.facts.rounds
    failure = job.outcome if isinstance(job.outcome, ServeError) else None
    return {
        "id": job.id,
        "client": job.client,
        "state": job.state,
        "failed": failure.code if failure else None,
        "age_s": round(job.age_s, 2),
        "queued_s": round(drafting.queued_s, 2),
        "prompt_tokens": job.checked.prompt_tokens,
        "cached_tokens": drafting.cached_tokens,
        "read_tokens": max(job.read_tokens, drafting.cached_tokens),
        "completion_tokens": stats.generated_tokens,
        "tokens_per_s": stats.tokens_per_s,
        "acceptance": stats.acceptance,
        "speedup": stats.speedup,
    }
