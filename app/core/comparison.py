"""Drafting off against drafting on, for one message: two requests, two replies, and how they compare.

One after the other, off first, on the same engine: at the same time they would slow each other down. Speeds count
decoding alone. One seed and coupled sampling make the texts the same at any temperature, except for near-ties in
low precision. Knows no screen.
"""

from __future__ import annotations

import secrets

import msgspec

from app.core.drafted_runs import DraftedRuns
from app.core.reply_facts import ReplyFacts
from app.core.reply_options import ReplyOptions
from app.text import figures
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Died, DraftSetting, Event, Failed, Finished, Generate, Message, Part, Round
from mlx_engine.protocol.stats import ReplyStats, ServerStats

MAX_TOKENS = 512
"""Of each reply: enough to compare speeds, and quick."""


def requests_to_compare(
    messages: tuple[Message, ...], options: ReplyOptions, draft_length: DraftSetting, ids: tuple[int, int]
) -> tuple[Generate, Generate]:
    """The same request without drafting and with `draft_length`. A reply at the end of `messages` is left out."""
    seed = options.sampling.seed
    plain = Generate(
        id=ids[0],
        messages=messages[:-1] if messages[-1].role == "assistant" else messages,
        sampling=msgspec.structs.replace(
            options.sampling, rule="coupled", seed=secrets.randbits(32) if seed is None else seed
        ),
        draft_length=0,
        max_tokens=min(options.max_tokens or MAX_TOKENS, MAX_TOKENS),
        is_thinking=options.is_thinking,
        measures_baseline=False,
    )
    return plain, msgspec.structs.replace(plain, id=ids[1], draft_length=draft_length)


def accepted_by_drafter(stats: ReplyStats | ServerStats) -> str:
    """`accepted: assistant 45, lookup 30`."""
    counts = (f"{name} {count.accepted:,}" for name, count in stats.by_drafter.items())
    return f"accepted: {', '.join(counts)}"


class ComparedReply:
    """One of the two replies so far."""

    def __init__(self, request: Generate) -> None:
        self.request = request
        self.runs = DraftedRuns()
        """The thoughts, if any, then the answer."""
        self.text = ""
        self.facts = ReplyFacts()

    @property
    def stats(self) -> ReplyStats | ServerStats:
        return self.facts.stats

    @property
    def finished(self) -> Finished | None:
        """None until it is complete."""
        return self.facts.finished

    def add(self, event: Round | Part | Finished) -> None:
        self.facts.add(event)
        self.runs.add(event.thinking, 0)
        if isinstance(event, Round):
            self.runs.add(event.text, event.drafted_characters, is_copied=event.is_copied)
        else:
            self.runs.add(event.text, 0)
        self.text = "".join(run.text for run in self.runs.runs)

    @property
    def title(self) -> str:
        """`drafting off · 32.0 tok/s`, `drafting auto · 58.3 tok/s · 71% acc`."""
        setting = self.request.draft_length
        parts = [f"drafting {setting or 'off'}"]
        if self.stats.tokens_per_s is not None:
            parts.append(f"{figures.speed(self.stats.tokens_per_s).strip()} tok/s")
        if self.stats.acceptance is not None:
            parts.append(f"{figures.percent(self.stats.acceptance).strip()} acc")
        return " · ".join(parts)


class Comparison:
    """Requests the plain reply, then the drafted one. Call `start`, then `hear` with every event."""

    def __init__(self, engine: EngineHandle, requests: tuple[Generate, Generate]) -> None:
        self.off, self.on = ComparedReply(requests[0]), ComparedReply(requests[1])
        self.error = ""
        """Why it ended early; empty if it did not."""
        self.is_stopping = False
        self._engine = engine
        self._requested: int | None = None

    def start(self) -> None:
        """Request the plain reply."""
        self._request_next()

    def hear(self, event: Event) -> None:
        """Handle one event; those about other requests are ignored. Requests the second reply after the first."""
        match event:
            case Failed(id=id, message=message) if id is None or id == self._requested:
                self.error = message
            case Died(message=message):
                self.error = message
            case Round() | Part() | Finished():
                reply = next((side for side in (self.off, self.on) if side.request.id == event.id), None)
                if reply is not None:
                    reply.add(event)
                    self._request_next()

    def stop(self) -> None:
        """End it at the engine's next round."""
        if self.is_running and not self.is_stopping:
            self.is_stopping = True
            self._engine.cancel()

    @property
    def is_running(self) -> bool:
        """Whether the engine still works on it."""
        return not self.error and self._next_request is not None

    @property
    def _next_request(self) -> Generate | None:
        """The request to send now, or the one being answered; None if no request is left."""
        replies = (self.off, self.on)
        if any(reply.finished and reply.finished.reason == "cancelled" for reply in replies):
            return None
        return next((reply.request for reply in replies if reply.finished is None), None)

    def _request_next(self) -> None:
        request = self._next_request
        if request is None or request.id == self._requested or self.error or self.is_stopping:
            return
        self._requested = request.id
        try:
            self._engine.generate(request)
        except SlipstreamError as error:
            self.error = str(error)

    @property
    def difference(self) -> int | None:
        """Characters before the first difference; None while there is none."""
        off, on = self.off.text, self.on.text
        shorter = min(len(off), len(on))
        if off[:shorter] != on[:shorter]:
            return next(at for at in range(shorter) if off[at] != on[at])
        is_complete = self.off.finished and self.on.finished
        return shorter if is_complete and len(off) != len(on) else None

    @property
    def speedup(self) -> float | None:
        """Tokens/s with drafting over tokens/s without; None before both are measured."""
        off, on = self.off.stats.tokens_per_s, self.on.stats.tokens_per_s
        return on / off if off and on else None

    @property
    def result(self) -> str:
        """The line of figures about both replies so far."""
        speedup = self.speedup
        parts = [
            f"off: {figures.speed(self.off.stats.tokens_per_s).strip()} tok/s",
            f"draft {self.on.request.draft_length}: {figures.speed(self.on.stats.tokens_per_s).strip()} tok/s",
        ]
        if speedup is not None:
            parts.append(figures.times(speedup).strip() + (" (slower)" if figures.is_slower(speedup) else ""))
        if self.on.stats.acceptance is not None:
            parts.append(f"{figures.percent(self.on.stats.acceptance).strip()} acc")
        if len(self.on.stats.by_drafter) > 1:
            parts.append(accepted_by_drafter(self.on.stats))
        return " · ".join([*parts, self._text_difference])

    @property
    def _text_difference(self) -> str:
        difference = self.difference
        if difference is not None:
            return f"differs at character {difference + 1:,}"
        count = self.on.stats.generated_tokens
        tokens = "" if count is None else f", {count:,} tok"
        return f"same text{tokens}" if self.on.finished and self.off.finished else f"same so far{tokens}"
