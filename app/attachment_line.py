"""The files that will go with the message, above the prompt: name, size and tokens before it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from textual import work
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from app import attachments
from app.attachments import Attachment, AttachmentError
from app.figures import MUTED

Found = Attachment | AttachmentError | None
"""The file of a mention, why it cannot be attached, or that it names none."""


USUAL_CHARACTERS_PER_TOKEN = 4
"""Until the engine has counted."""


class AttachmentLine(Static):
    """Not there while no file is mentioned. Files are read on a thread of their own."""

    @dataclass
    class CountWanted(Message):
        """The tokens of a file are asked for; `count` gives them."""

        attachment: Attachment

    def __init__(self, folder: Path | None = None) -> None:
        """folder: what relative paths start from; None: where the program runs."""
        super().__init__(id="attachments", markup=False)
        self._folder = folder or Path()
        self._found: dict[str, Found] = {}
        self._tokens: dict[Attachment, int] = {}
        self._context_tokens: int | None = None
        """What the model takes in at most; None: not known yet."""

    def look(self, wanted: Sequence[str]) -> None:
        """Show the files of these mentions."""
        self._found = {mention: found for mention, found in self._found.items() if mention in wanted}
        self._show()
        if any(mention not in self._found for mention in wanted):
            self._find(wanted)

    def keep(self, sent: Sequence[Attachment]) -> None:
        """A message is changed: its files go with it as they were sent."""
        self._found |= {each.mention: each for each in sent}

    def recount(self, context_tokens: int) -> None:
        """Another model counts otherwise, and has another context."""
        self._context_tokens = context_tokens
        self._tokens.clear()
        self._show()
        for found in self._found.values():
            if isinstance(found, Attachment):
                self.post_message(self.CountWanted(found))

    def count(self, attachment: Attachment, tokens: int) -> None:
        """So many tokens a file has."""
        self._tokens = {attachment: tokens, **self._tokens}
        self._show()

    @property
    def found(self) -> dict[str, Found]:
        """What every mention has turned out to be, so far."""
        return dict(self._found)

    async def take(
        self, wanted: Sequence[str], shown: Mapping[str, Found], *, is_insisting: bool
    ) -> tuple[Attachment, ...]:
        """The files of some mentions, those in `shown` as they are there.

        Raises AttachmentError for what cannot be attached, unless the person insists on sending without it.
        """
        found = {each: shown[each] if each in shown else await self._read(each) for each in wanted}
        if not is_insisting:
            for each in found.values():
                if isinstance(each, AttachmentError):
                    self._found |= found
                    raise each
        return tuple({each.mention: each for each in found.values() if isinstance(each, Attachment)}.values())

    @work(exclusive=True)
    async def _find(self, wanted: Sequence[str]) -> None:
        for mention in wanted:
            if mention not in self._found:
                self._found[mention] = found = await self._read(mention)
                if isinstance(found, Attachment):
                    self.post_message(self.CountWanted(found))
        self._show()

    async def _read(self, mention: str) -> Found:
        return await asyncio.to_thread(_find, mention, self._folder)

    def _show(self) -> None:
        # A folder whose name is being typed is no trouble yet.
        found = [each for mention, each in self._found.items() if each is not None and not mention.endswith("/")]
        self.update(Content("\n").join(self._line(each) for each in dict.fromkeys(found)))
        self.display = bool(found)

    def _line(self, found: Attachment | AttachmentError) -> Content:
        if isinstance(found, AttachmentError):
            return Content.styled(str(found), "$text-error")
        tokens = self._tokens.get(found)
        guessed = f"about {1 + len(found.text) // USUAL_CHARACTERS_PER_TOKEN:,} tokens"
        counted = guessed if tokens is None else f"{tokens:,} token{'s' * (tokens != 1)}"
        line = Content.styled(f"{found.figures} · {counted}", MUTED)
        if tokens is None or self._context_tokens is None or tokens <= self._context_tokens:
            return line
        return line + Content.styled(
            f" · too long: the model's context holds {self._context_tokens:,}", "$text-error"
        )


def _find(mention: str, folder: Path) -> Found:
    try:
        return attachments.find(mention, folder)
    except AttachmentError as error:
        return error
