"""Regroups streamed text into sentences, so that a screen reader can read it. Knows no screen."""

from __future__ import annotations

import re

MAX_HELD_CHARACTERS = 200
"""Longer text is passed on before its sentence is complete."""
_SENTENCES = re.compile(r".*(?:\n|[.!?:;…](?=\s)|[。！？])", re.DOTALL)


class Sentences:
    """Holds text back until a sentence or line is complete. Loses and adds nothing."""

    def __init__(self) -> None:
        self._held = ""

    def add(self, text: str) -> str:
        """Add text; returns the complete sentences."""
        self._held += text
        whole = _SENTENCES.match(self._held)
        end = whole.end() if whole else 0
        if not end and len(self._held) > MAX_HELD_CHARACTERS:
            end = self._held.rfind(" ") + 1
        complete, self._held = self._held[:end], self._held[end:]
        return complete

    def finish(self) -> str:
        """Returns the rest."""
        rest, self._held = self._held, ""
        return rest
