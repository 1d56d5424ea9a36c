"""One request from its arrival to its answer, between the task that makes the answer and the one that sends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.core.reply_facts import ReplyFacts
from app.serve.answer import Answer, AnswerPiece
from app.serve.errors import ServeError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import Checked, Generate

State = Literal["queued", "reading", "writing", "done"]
SHORT_TOKENS = 1024
"""A prompt of so many tokens is read in a moment."""


@dataclass(eq=False, slots=True)
class Job:
    """A request that was checked. Belongs to the event loop."""

    id: str
    request: AnswerRequest
    generate: Generate
    checked: Checked
    client: str
    """The program that asks, as it calls itself."""
    arrived_s: float = field(default_factory=time.monotonic)
    state: State = "queued"
    started_s: float | None = None
    """When the engine began; None: it waits."""
    ended_s: float | None = None
    """When the outcome was known."""
    read_tokens: int = 0
    """Of the prompt, so far."""
    facts: ReplyFacts = field(default_factory=ReplyFacts)
    outcome: Answer | ServeError | None = None
    """None until nothing more comes."""
    is_stopped: bool = False
    """A person stopped it in the chat beside it."""
    has_left: bool = False
    """Nobody waits for the answer any more."""
    has_its_call: bool = False
    """The only one that its client wants."""
    refused_calls: tuple[str, ...] = ()
    """Why calls are none; they are in the text."""
    _all: list[AnswerPiece] = field(default_factory=list)
    _taken: int = 0
    """How many of them were taken."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_short(self) -> bool:
        """Such as a request for a title: it may go before others, and keeps nobody waiting for long."""
        return not self.request.tools and self.checked.prompt_tokens <= SHORT_TOKENS

    @property
    def age_s(self) -> float:
        """From its arrival to its outcome, or to now."""
        return (self.ended_s or time.monotonic()) - self.arrived_s

    @property
    def is_unwanted(self) -> bool:
        """The answer is to end."""
        return self.has_left or self.is_stopped

    def add(self, piece: AnswerPiece) -> None:
        """Keep a piece until it is taken. All of them are no longer than the context."""
        self._all.append(piece)
        self._changed.set()

    def finish(self, outcome: Answer | ServeError) -> None:
        """Nothing more comes."""
        self.outcome, self.state, self.ended_s = outcome, "done", time.monotonic()
        self._changed.set()

    @property
    def made(self) -> AnswerPiece:
        """All pieces so far, as one."""
        return joined(self._all)

    @property
    def is_taken(self) -> bool:
        """Whether all pieces so far were taken."""
        return self._taken == len(self._all)

    async def take(self, patience_s: float) -> AnswerPiece | None:
        """What came since the last call, as one piece. None: nothing for so long; an empty one: nothing more."""
        try:
            async with asyncio.timeout(patience_s):
                await self._changed.wait()
        except TimeoutError:
            return None
        if self.outcome is None:
            self._changed.clear()
        taken, self._taken = self._all[self._taken :], len(self._all)
        return joined(taken)


def joined(pieces: Sequence[AnswerPiece]) -> AnswerPiece:
    """As one piece."""
    return AnswerPiece(
        "".join(piece.text for piece in pieces),
        "".join(piece.thinking for piece in pieces),
        tuple(call for piece in pieces for call in piece.calls),
    )
