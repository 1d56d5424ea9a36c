"""Walks through the prompts that were sent; what was changed in one of them stays until something is sent."""

from __future__ import annotations

from collections.abc import Iterator

from app.core.prompt_history import PromptHistory


class EarlierPrompts:
    """Begins at the new prompt, behind the last one that was sent."""

    def __init__(self, history: PromptHistory) -> None:
        self._history = history
        self._sent = list(history.entries)
        self._index: int | None = None
        """Which of the sent prompts is shown; None: the new one."""
        self._changed: dict[int | None, str] = {}
        """Texts as the person left them, by index."""

    @property
    def is_at_new(self) -> bool:
        """Whether the new prompt is shown."""
        return self._index is None

    def walk(self, step: int, shown: str) -> str | None:
        """The text of the prompt before (-1) or after (1) the one that is shown; None if there is none.

        shown: the text as it is now.
        """
        at = len(self._sent) if self._index is None else self._index
        if not 0 <= at + step <= len(self._sent):
            return None
        self._changed[self._index] = shown
        self._index = at + step if at + step < len(self._sent) else None
        return self._changed.get(self._index, "" if self._index is None else self._sent[self._index])

    def leave(self, text: str, whole: str) -> None:
        """The prompt is emptied: keep its text, if there is one, and go to the new prompt. whole: it in full."""
        if text.strip() and self._sent[-1:] != [text]:
            self._sent.append(text)
            self._history.add(whole.rstrip())
        self._index = None
        self._changed.clear()

    def drafts(self, shown: str) -> Iterator[str]:
        """What was typed and not sent: the new prompt, and the one that is shown, if it was changed."""
        yield self._changed.get(None, "")
        if self._index is None or shown != self._sent[self._index]:
            yield shown

    def keep_draft(self, whole: str) -> None:
        """Keep a text for the next run."""
        self._history.add(whole, is_draft=True)
