"""Drafting off against drafting on, for one prompt: what is asked, what came, and how the two compare.

One after the other, off first, by the same engine: at the same time they would share one device, and each would
slow the other. Both read the same prompt, and speeds count decoding alone. One seed and coupled sampling make
the texts the same at any temperature, but for near-ties in low precision. Knows nothing of the screen.
"""

from __future__ import annotations

import secrets

import msgspec
from textual.content import Content

from app.core.chat_options import ChatOptions
from app.text import figures
from app.tui.transcript.tint import DraftedRuns
from mlx_engine.protocol.events import DraftSetting, Event, Finished, Generate, Message, Round
from mlx_engine.protocol.stats import BaselineSpeed, ReplyStats

MOST_TOKENS = 512
"""Of each reply: enough to tell the speeds, and over soon."""
DIFFERENCE = "reverse"


def questions(
    messages: tuple[Message, ...], options: ChatOptions, draft_length: DraftSetting, ids: tuple[int, int]
) -> tuple[Generate, Generate]:
    """The same question twice: without drafting, and with `draft_length`. A reply that it has is left out."""
    seed = options.sampling.seed
    plain = Generate(
        id=ids[0],
        messages=messages[:-1] if messages[-1].role == "assistant" else messages,
        sampling=msgspec.structs.replace(
            options.sampling, rule="coupled", seed=secrets.randbits(32) if seed is None else seed
        ),
        draft_length=0,
        max_tokens=min(options.max_tokens or MOST_TOKENS, MOST_TOKENS),
        is_thinking=options.is_thinking,
        measures_baseline=False,
    )
    return plain, msgspec.structs.replace(plain, id=ids[1], draft_length=draft_length)


class Side:
    """One of the two replies, as far as it has come."""

    def __init__(self, request: Generate) -> None:
        self.request = request
        self.runs = DraftedRuns()
        """Thoughts, if any, then the answer."""
        self.text = ""
        self.stats = ReplyStats(BaselineSpeed())
        self.finished: Finished | None = None

    def take(self, event: Round | Finished) -> None:
        """Let it grow."""
        if isinstance(event, Finished):
            self.finished = event
        else:
            self.stats.add(event)
        self.runs.add(event.thinking, 0)
        self.runs.add(event.text, event.drafted_characters if isinstance(event, Round) else 0)
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

    def content(self, tint: str, difference: int | None) -> Content:
        """The text, drafted runs in `tint`, and the word at the first difference marked."""
        content = self.runs.content(tint)
        if difference is None or difference >= len(self.text):
            return content
        word = self.text[difference:].split(maxsplit=1)
        end = self.text.index(word[0], difference) + len(word[0]) if word else difference + 1
        return content.stylize(DIFFERENCE, difference, end)


class Comparison:
    """The two replies, the plain one first. Say `next_request` until it is None, and `take` what is reported."""

    def __init__(self, requests: tuple[Generate, Generate]) -> None:
        self.off, self.on = Side(requests[0]), Side(requests[1])

    @property
    def next_request(self) -> Generate | None:
        """What is to be asked now or is being answered; None: nothing more."""
        sides = (self.off, self.on)
        if any(side.finished and side.finished.reason == "cancelled" for side in sides):
            return None
        return next((side.request for side in sides if side.finished is None), None)

    def take(self, event: Event) -> bool:
        """Fold an event in; whether it belongs to one of the two."""
        if not isinstance(event, Round | Finished):
            return False
        side = next((side for side in (self.off, self.on) if side.request.id == event.id), None)
        if side is not None:
            side.take(event)
        return side is not None

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
        """One line about both, as far as they are known."""
        speedup = self.speedup
        parts = [
            f"off: {figures.speed(self.off.stats.tokens_per_s).strip()} tok/s",
            f"draft {self.on.request.draft_length}: {figures.speed(self.on.stats.tokens_per_s).strip()} tok/s",
        ]
        if speedup is not None:
            parts.append(figures.times(speedup).strip() + (" slower" if figures.is_slower(speedup) else ""))
        if self.on.stats.acceptance is not None:
            parts.append(f"{figures.percent(self.on.stats.acceptance).strip()} acc")
        return " · ".join([*parts, self._sameness])

    @property
    def _sameness(self) -> str:
        difference = self.difference
        if difference is not None:
            return f"differs at character {difference + 1:,}"
        tokens = f"{self.on.stats.generated_tokens:,} tok"
        return f"same text, {tokens}" if self.on.finished and self.off.finished else f"same so far, {tokens}"
