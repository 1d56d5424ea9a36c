"""A reply as runs of drafted and other text."""

from __future__ import annotations

from dataclasses import dataclass

from app.text.sanitise import sanitise


@dataclass(frozen=True, slots=True)
class DraftedRun:
    """Consecutive characters of a reply, all drafted or none."""

    text: str
    is_drafted: bool


class DraftedRuns:
    """The runs of a growing reply, sanitised. Joined, they are its whole text."""

    def __init__(self) -> None:
        self.runs: list[DraftedRun] = []
        self.has_facts = False
        """Whether anything of it was drafted, as far as is known."""

    def add(self, text: str, drafted_characters: int) -> None:
        """Append text as the engine reports it; the first `drafted_characters` of it were drafted."""
        parts = (DraftedRun(text[:drafted_characters], True), DraftedRun(text[drafted_characters:], False))
        self.runs += [DraftedRun(sanitise(part.text), part.is_drafted) for part in parts if part.text]
        self.has_facts = self.has_facts or drafted_characters > 0
