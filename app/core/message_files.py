"""Puts a message together from what the person typed and its files, and takes it apart again.

The typed text comes first. Each file follows below it under its name, in a code fence longer than any fence in the
file. Where the files begin is stored with the message, because a person can type what looks like a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from app.core.attachments import Attachment

_HEADING = re.compile(r"^(@[^\n]+) \(([0-9]{1,3}(?:,[0-9]{3}){0,3}) bytes\):\n(`{3,})[^`\n]*\n", re.MULTILINE)
_FENCE = re.compile(r"^`{3,}$", re.MULTILINE)


def compose_message(text: str, attachments: Sequence[Attachment]) -> str:
    """The typed text, and the files below it."""
    return text + "".join(map(_block, attachments))


def _block(attachment: Attachment) -> str:
    runs = re.findall(r"`{3,}", attachment.text)
    fence = "`" * (max(map(len, runs), default=2) + 1)
    suffix = re.sub(r"[^A-Za-z0-9+_-]", "", PurePath(attachment.mention.strip('@"')).suffix)
    end = "" if attachment.text.endswith("\n") else "\n"
    head = f"{attachment.mention} ({attachment.size_bytes:,} bytes):"
    return f"\n\n{head}\n{fence}{suffix}\n{attachment.text}{end}{fence}"


def split_message(message: str, typed_characters: int | None = None) -> tuple[str, tuple[Attachment, ...]]:
    """The typed text and the files of a message that `compose_message` made; any other is all typed text.

    typed_characters: the length of the typed text. None if that was not stored, as in chats of earlier versions:
    then the files are those that the end of the message looks like.
    """
    if typed_characters is not None and typed_characters >= len(message):
        return message, ()
    chain = _Chain(message)
    start = chain.first_start() if typed_characters is None else typed_characters + 2
    if start is None or start < 2 or message[start - 2 : start] != "\n\n" or start not in chain.reaches_end:
        return message, ()
    return message[: start - 2], tuple(chain.files_from(start))


class _Chain:
    """The headings of files in a message, and which of them lead from file to file to its end.

    Read backwards, so that every heading and fence is looked at once.
    """

    def __init__(self, message: str) -> None:
        self._message = message
        self._headings = {match.start(): match for match in _HEADING.finditer(message)}
        self._fence_starts: dict[int, int] = {}
        """Of the fence that closes each file, by the start of its heading."""
        self.reaches_end: set[int] = set()
        """The starts of those headings from which files alone follow, up to the end of the message."""
        fences = [match.span() for match in _FENCE.finditer(message)]
        nearest: dict[int, int] = {}
        for start, heading in reversed(self._headings.items()):
            while fences and fences[-1][0] >= heading.end():
                fence_start, fence_end = fences.pop()
                nearest[fence_end - fence_start] = fence_start
            length = len(heading[3])
            if length in nearest:
                self._fence_starts[start] = nearest[length]
                end = nearest[length] + length
                is_followed = message.startswith("\n\n", end) and end + 2 in self.reaches_end
                if end == len(message) or is_followed:
                    self.reaches_end.add(start)

    def first_start(self) -> int | None:
        """The first heading below a blank line that leads to the end; None if there is none."""
        below_blank = (start for start in self.reaches_end if self._message[max(0, start - 2) : start] == "\n\n")
        return min(below_blank, default=None)

    def files_from(self, start: int) -> list[Attachment]:
        """The files from a heading that leads to the end."""
        files: list[Attachment] = []
        while start in self.reaches_end:
            heading, text_end = self._headings[start], self._fence_starts[start]
            text = self._message[heading.end() : text_end]
            files.append(Attachment(heading[1], text, int(heading[2].replace(",", ""))))
            start = text_end + len(heading[3]) + 2
        return files
