"""Long texts that stand collapsed in the prompt, each as one token. Knows no screen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.core.attachments import mentions

SHOWN_CHARACTERS = 4000
"""A longer text is collapsed: wrapping a megabyte in a text area takes seconds, on every key."""


@dataclass(frozen=True, slots=True)
class LongText:
    """What one token stands for."""

    text: str
    mentions: tuple[str, ...]
    """Of files, by the person; what was pasted mentions none."""


class LongTexts:
    """The collapsed texts by their tokens, kept as long as the program runs: an earlier prompt may come back."""

    def __init__(self) -> None:
        self._texts: dict[str, LongText] = {}

    def collapse_pasted(self, text: str) -> str:
        """A pasted text as it is to stand in the prompt: one token if it is long; what was cut here, as it was."""
        return self._collapse_parts(text, "pasted text", ())

    def collapse_own(self, text: str, mentioned: Sequence[str]) -> str:
        """A text of the person's own, in which what was collapsed before is again.

        mentioned: the files that the person mentions. That a long text names others does not attach them: it may
        have been pasted, in an earlier run or before it was changed.
        """
        return self._collapse_parts(text, "text", mentioned)

    def whole(self, text: str) -> str:
        """A prompt with every collapsed text in full."""
        return re.sub(self._pattern, lambda match: self._texts[match[0]].text, text) if self._texts else text

    def mentions(self, text: str) -> list[str]:
        """Every `@path` that the person has written in a prompt, once, also in a collapsed text."""
        collapsed = (each for begin, end in self.spans(text) for each in self._texts[text[begin:end]].mentions)
        return list(dict.fromkeys((*mentions(text), *collapsed)))

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where tokens begin and end in a prompt or one line of it."""
        return (match.span() for match in re.finditer(self._pattern, text)) if self._texts else iter(())

    @property
    def _pattern(self) -> str:
        return "|".join(map(re.escape, self._texts))

    def _collapse_parts(self, text: str, what: str, mentioned: Sequence[str]) -> str:
        parts = re.split(f"({self._pattern})", self._with_tokens(text)) if self._texts else [text]
        return "".join(
            part
            if part in self._texts
            else self._collapse(part, what, tuple(each for each in mentioned if each in part))
            for part in parts
        )

    def _collapse(self, text: str, what: str, mentioned: tuple[str, ...]) -> str:
        if len(text) <= SHOWN_CHARACTERS:
            return text
        lines = text.count("\n") + (not text.endswith("\n"))
        figures = f"{len(text):,} characters, {lines:,} line{'s' * (lines != 1)}"
        token = f"[{what} {len(self._texts) + 1}: {figures}]"
        self._texts[token] = LongText(text, mentioned)
        return token

    def _with_tokens(self, text: str) -> str:
        """The longest first: one may hold another."""
        for token, long in sorted(self._texts.items(), key=lambda item: -len(item[1].text)):
            text = text.replace(long.text, token)
            # What is sent has no blanks at its end.
            if (end := long.text.rstrip()) and text.endswith(end):
                text = text.removesuffix(end) + token
        return text
