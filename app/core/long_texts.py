"""Long texts in the prompt, each collapsed to a short placeholder. Knows no screen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.core.attachments import mentions, spellings

MAX_SHOWN_CHARACTERS = 4000
"""A longer text is collapsed: a text area takes seconds to wrap a megabyte, on every key."""
_PLACEHOLDER = re.compile(r"\[(?:pasted )?text \d+: [\d,]+ characters, [\d,]+ lines?\]")


@dataclass(frozen=True, slots=True)
class LongText:
    """What one placeholder stands for."""

    text: str
    mentions: tuple[str, ...]
    """Of files, by the person; a pasted text mentions none."""


class LongTexts:
    """The collapsed texts by placeholder, kept until the program ends, since an earlier prompt may come back."""

    def __init__(self) -> None:
        self._texts: dict[str, LongText] = {}

    def collapse_pasted(self, text: str) -> str:
        """A pasted text for the prompt. What was collapsed before, and cut, becomes the same placeholder again."""
        return self._collapse_parts(text, "pasted text", ())

    def collapse_own(self, text: str, mentioned: Sequence[str]) -> str:
        """A text of the person's own for the prompt.

        mentioned: the files that the person mentions in it. Other mentions in a long text attach nothing, because
        it may have been pasted in an earlier run, or edited since.
        """
        return self._collapse_parts(text, "text", mentioned)

    def whole(self, text: str) -> str:
        """A prompt with every collapsed text in full."""
        return _PLACEHOLDER.sub(self._text_of, text)

    def mentions(self, text: str) -> list[str]:
        """Every different `@path` that the person wrote in a prompt, also in a collapsed text."""
        collapsed = (path for start, end in self.spans(text) for path in self._texts[text[start:end]].mentions)
        return list(dict.fromkeys((*mentions(text), *collapsed)))

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of every placeholder in a prompt or one line of it."""
        return (match.span() for match in _PLACEHOLDER.finditer(text) if match[0] in self._texts)

    def _text_of(self, placeholder: re.Match[str]) -> str:
        long = self._texts.get(placeholder[0])
        return long.text if long else placeholder[0]

    def _collapse_parts(self, text: str, kind: str, mentioned: Sequence[str]) -> str:
        collapsed: list[str] = []
        end = 0
        known = self._collapse_known(text)
        for start, next_end in (*self.spans(known), (len(known), len(known))):
            collapsed += (self._collapse(known[end:start], kind, mentioned), known[start:next_end])
            end = next_end
        return "".join(collapsed)

    def _collapse(self, text: str, kind: str, mentioned: Sequence[str]) -> str:
        if len(text) <= MAX_SHOWN_CHARACTERS:
            return text
        present = {spelling for mention in mentions(text) for spelling in spellings(mention)}
        mentioned = tuple(mention for mention in mentioned if mention in present)
        lines = text.count("\n") + (not text.endswith("\n"))
        size = f"{len(text):,} characters, {lines:,} line{'s' * (lines != 1)}"
        placeholder = f"[{kind} {len(self._texts) + 1}: {size}]"
        self._texts[placeholder] = LongText(text, mentioned)
        return placeholder

    def _collapse_known(self, text: str) -> str:
        """Replace texts that were collapsed before, the longest first, since one may contain another."""
        for placeholder, long in sorted(self._texts.items(), key=lambda item: -len(item[1].text)):
            text = text.replace(long.text, placeholder)
            # A message is sent without the blanks at its end.
            if (stripped := long.text.rstrip()) and text.endswith(stripped):
                text = text.removesuffix(stripped) + placeholder
        return text
