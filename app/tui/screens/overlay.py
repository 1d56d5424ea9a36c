"""A screen over the chat."""

from __future__ import annotations

from typing import TypeVar

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen

Answer = TypeVar("Answer")


class Overlay(ModalScreen[Answer]):
    """Answers once, and only while it is on top.

    Textual closes whichever screen is on top: a second escape or click that was already on its way here would
    close the screen beneath as well, and closing the last one ends the app.
    """

    def dismiss(self, result: Answer | None = None) -> AwaitComplete:
        """Close with an answer; does nothing when another screen is on top, or when this one is closed."""
        return super().dismiss(result) if self.is_active else AwaitComplete()
