"""Ends a text before the first stop string. Text that may be the beginning of one is held back."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """For one growing text."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found: str | None = None
        """The stop string that came. No text follows."""

    def add(self, text: str) -> str:
        """What can be shown now."""
        if self.found is not None:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        ends = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            # Of those that begin at the same place, the longest says most.
            at, self.found = min(ends, key=lambda end: (end[0], -len(end[1])))
            self._held = ""
            return text[:at]
        kept = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def finish(self) -> str:
        """The text is complete, so what was held back is no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
