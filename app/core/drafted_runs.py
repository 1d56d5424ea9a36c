"""Which parts of a reply were drafted."""

from __future__ import annotations

from dataclasses import dataclass

from app.text.sanitise import sanitise


@dataclass(frozen=True, slots=True)
class DraftedRun:
    """A stretch of a reply."""

    text: str
    is_drafted: bool


class DraftedRuns:
    """A reply as runs, sanitised, in order; together they are the text exactly."""

    def __init__(self) -> None:
        self.runs: list[DraftedRun] = []
        self.has_facts = False
        """Whether any of it is known to be drafted."""

    def add(self, text: str, drafted_characters: int) -> None:
        """Append text as the engine reports it; the first `drafted_characters` of it were drafted."""
        parts = (DraftedRun(text[:drafted_characters], True), DraftedRun(text[drafted_characters:], False))
        self.runs += [DraftedRun(sanitise(part.text), part.is_drafted) for part in parts if part.text]
        self.has_facts = self.has_facts or drafted_characters > 0
