"""Whose turn it is: first come, first served. A short request goes before long ones, so that a title does not wait
for an agent's turn; but only a few times, so that it keeps nobody waiting for ever."""

from __future__ import annotations

import asyncio

from app.serve.errors import BusyError
from app.serve.job import Job

MOST_WAITING = 1024
MOST_OVERTAKEN = 4
"""How often a long request may be overtaken."""


class JobQueue:
    """Requests that wait for the engine. Belongs to the event loop."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._overtaken: dict[Job, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Raises BusyError."""
        if len(self._jobs) >= MOST_WAITING:
            raise BusyError(f"{MOST_WAITING} requests wait already. Send the request again in a moment.")
        at = len(self._jobs)
        if job.is_short:
            while at and not self._jobs[at - 1].is_short and self._overtaken[self._jobs[at - 1]] < MOST_OVERTAKEN:
                at -= 1
        for other in self._jobs[at:]:
            self._overtaken[other] += 1
        self._jobs.insert(at, job)
        self._overtaken[job] = 0
        self._changed.set()

    def remove(self, job: Job) -> bool:
        """Whether it waited still."""
        if job not in self._overtaken:
            return False
        self._jobs.remove(job)
        del self._overtaken[job]
        return True

    async def take(self) -> Job:
        """The next one; waits until there is one."""
        while not self._jobs:
            self._changed.clear()
            await self._changed.wait()
        job = self._jobs[0]
        self.remove(job)
        return job
