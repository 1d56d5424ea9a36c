"""Text that comes in pieces, handed on in sentences, so that it can be read aloud. Knows no screen."""

from __future__ import annotations

import re

LONGEST_HELD = 200
"""A sentence is held back until it is complete; a longer one is not."""
_SENTENCES = re.compile(r".*(?:\n|[.!?:;…](?=\s)|[。！？])", re.DOTALL)


class Sentences:
    """Holds text back until a sentence or a line is complete. Nothing is lost, nothing is added."""

    def __init__(self) -> None:
        self._held = ""

    def add(self, text: str) -> str:
        """What can be said now."""
        self._held += text
        whole = _SENTENCES.match(self._held)
        end = whole.end() if whole else 0
        if not end and len(self._held) > LONGEST_HELD:
            end = self._held.rfind(" ") + 1
        said, self._held = self._held[:end], self._held[end:]
        return said

    def finish(self) -> str:
        """What is left."""
        said, self._held = self._held, ""
        return said
