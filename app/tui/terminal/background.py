"""Asks the terminal for its background colour, and takes the answer out of what the person types."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic

QUESTION = "\x1b]11;?\x1b\\"
"""OSC 11. A terminal that does not know it answers nothing."""
ANSWER_S = 2.0
"""A later answer is not waited for, and then typed bytes are not looked at any more."""
_ANSWER = re.compile(r"\x1b\]11;rgba?:([0-9a-fA-F/]{1,24})(?:\x07|\x1b\\)")
_BEGIN, _MAX_CHARACTERS = "\x1b]11;", 48


class BackgroundAnswer:
    """Works on chunks of input that are split anywhere. Nothing ever waits for the answer."""

    def __init__(self, tell: Callable[[bool], object], clock: Callable[[], float] = monotonic) -> None:
        """tell: called once, with whether the background is light."""
        self._tell = tell
        self._clock = clock
        self._until_s = float("-inf")
        self._held = ""

    def expect(self) -> None:
        """The question has been asked."""
        self._until_s = self._clock() + ANSWER_S

    def feed(self, text: str) -> str:
        """The input without the answer. The beginning of one is held back until the next `feed` or `flush`."""
        if self._clock() > self._until_s:
            return self.flush() + text
        text, self._held = self._held + text, ""
        if answer := _ANSWER.search(text):
            self._until_s = float("-inf")
            if (luminance := _luminance(answer[1])) is not None:
                self._tell(luminance > 0.5)
            return text[: answer.start()] + text[answer.end() :]
        begin = _begin_of_answer(text)
        text, self._held = text[:begin], text[begin:]
        return text

    def flush(self) -> str:
        """What was held back, when nothing follows it at once: it was typed."""
        held, self._held = self._held, ""
        return held


def _begin_of_answer(text: str) -> int:
    """Where an answer begins that is not complete yet; the length of the text if there is none."""
    begin = text.rfind(_BEGIN)
    if begin >= 0:
        return begin if len(text) - begin < _MAX_CHARACTERS else len(text)
    sizes = (size for size in range(len(_BEGIN) - 1, 0, -1) if text.endswith(_BEGIN[:size]))
    return len(text) - next(sizes, 0)


def _luminance(channels: str) -> float | None:
    """From 0 to 1, of `ffff/ffff/ffff` with one to four digits each; None if it is no colour."""
    parts = channels.split("/")[:3]
    if len(parts) < 3 or not all(parts):
        return None
    red, green, blue = (int(part, 16) / int("f" * len(part), 16) for part in parts)
    return 0.299 * red + 0.587 * green + 0.114 * blue
