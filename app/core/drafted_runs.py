"""A reply as runs of drafted and other text."""

from __future__ import annotations

from dataclasses import dataclass

from app.text.sanitise import sanitise


@dataclass(frozen=True, slots=True)
class DraftedRun:
    """Consecutive characters of a reply, all from the same source."""

    text: str
    is_drafted: bool
    is_copied: bool = False
    """Drafted by copying earlier text."""


class DraftedRuns:
    """The runs of a growing reply, sanitised. Joined, they are its whole text."""

    def __init__(self) -> None:
        self.runs: list[DraftedRun] = []
        self.has_facts = False
        """Whether anything of it was drafted, as far as is known."""
        self.has_copies = False
        """Whether anything of it was copied."""

    def add(self, text: str, drafted_characters: int, *, is_copied: bool = False) -> None:
        """Append text as the engine reports it; the first `drafted_characters` of it were drafted, or copied."""
        drafted, rest = text[:drafted_characters], text[drafted_characters:]
        if drafted:
            self.runs.append(DraftedRun(sanitise(drafted), True, is_copied))
        if rest:
            self.runs.append(DraftedRun(sanitise(rest), False))
        self.has_facts = self.has_facts or drafted_characters > 0
        self.has_copies = self.has_copies or (is_copied and drafted_characters > 0)
