"""The files that will go with the message, above the prompt: name, size and tokens before it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from textual import work
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.widget import Widget

from app.core import attachments
from app.core.attachments import Attachment, AttachmentError
from app.text.figures import MUTED

Found = Attachment | AttachmentError | None
"""The file of a mention, why it cannot be attached, or that it names none."""


USUAL_CHARACTERS_PER_TOKEN = 4
"""Until the engine has counted."""


class AttachmentLine(Widget):
    """Not there while no file is mentioned. Files are read on a thread of their own."""

    @dataclass
    class CountWanted(Message):
        """The tokens of a file are asked for; `count` gives them."""

        attachment: Attachment

    def __init__(self, folder: Path | None = None) -> None:
        """folder: what relative paths start from; None: where the program runs."""
        super().__init__(id="attachments")
        self._folder = folder or Path()
        self._found: dict[str, Found] = {}
        self._shown: list[Attachment | AttachmentError] = []
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
        self._shown = sorted(dict.fromkeys(found), key=lambda each: not self._is_trouble(each))
        self.display = bool(found)
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """A row for each file."""
        return len(self._shown)

    def render(self) -> Content:
        """As many files as there are rows for, first those that cannot go, and how many more there are."""
        width, rows = self.content_size
        lines = [self._line(each) for each in self._shown[:rows]]
        if lines and (hidden := len(self._shown) - rows) > 0:
            more = Content.styled(f" +{hidden} file{'s' * (hidden != 1)}", MUTED)
            lines[-1] = lines[-1].truncate(max(0, width - more.cell_length), ellipsis=True) + more
        return Content("\n").join(lines)

    def _is_trouble(self, found: Attachment | AttachmentError) -> bool:
        return isinstance(found, AttachmentError) or self._is_too_long(found)

    def _is_too_long(self, found: Attachment) -> bool:
        return self._context_tokens is not None and self._tokens.get(found, 0) > self._context_tokens

    def _line(self, found: Attachment | AttachmentError) -> Content:
        """What matters most first: a narrow window cuts off the end."""
        if isinstance(found, AttachmentError):
            return Content.styled(str(found), "$text-error")
        tokens = self._tokens.get(found)
        guessed = f"about {1 + len(found.text) // USUAL_CHARACTERS_PER_TOKEN:,} tokens"
        counted = guessed if tokens is None else f"{tokens:,} token{'s' * (tokens != 1)}"
        if self._is_too_long(found):
            words = f"too long · {found.name} · {counted}, the context holds {self._context_tokens:,}"
            return Content.styled(words, "$text-error") + Content.styled(f" · {found.sizes}", MUTED)
        return Content.styled(f"{found.name} · {counted} · {found.sizes}", MUTED)


def _find(mention: str, folder: Path) -> Found:
    try:
        return attachments.find(mention, folder)
    except AttachmentError as error:
        return error
