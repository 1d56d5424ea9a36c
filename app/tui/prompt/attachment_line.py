"""The files that the message in the prompt attaches: name, tokens and size, shown above it before it is sent."""

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
from app.core.attachments import Attachment, AttachmentError, MissingFileError
from app.text.figures import MUTED

MentionResult = Attachment | AttachmentError
"""The file of an `@path` mention, or the reason why it cannot be attached."""

ESTIMATED_CHARACTERS_PER_TOKEN = 4
"""Until the engine has counted."""


class AttachmentLine(Widget):
    """Hidden while no file is mentioned. Reads files in a thread."""

    @dataclass
    class TokenCountRequested(Message):
        """The number of tokens of a file is needed. Answer with `set_token_count`."""

        attachment: Attachment

    def __init__(self, folder: Path | None = None) -> None:
        """folder: what relative paths start from; None: the working directory."""
        super().__init__(id="attachments")
        self._folder = folder or Path()
        self._results: dict[str, MentionResult] = {}
        self._shown: list[Attachment | AttachmentError] = []
        self._tokens: dict[Attachment, int] = {}
        self._context_tokens: int | None = None
        """The model's context; None while it is loading, and where a server does not say."""

    def show_mentions(self, mentions: Sequence[str]) -> None:
        """Show the files of these mentions, reading those that are new."""
        self._results = {mention: result for mention, result in self._results.items() if mention in mentions}
        self._show()
        if any(mention not in self._results for mention in mentions):
            self._read_new(mentions)

    def restore(self, sent: Sequence[Attachment]) -> None:
        """Use these files as they were sent, for a message that is edited."""
        self._results |= {each.mention: each for each in sent}

    def recount(self, context_tokens: int | None) -> None:
        """Request all token counts again, for another model. context_tokens: its context; None: unknown."""
        self._context_tokens = context_tokens
        self._tokens.clear()
        self._show()
        for result in self._results.values():
            if isinstance(result, Attachment):
                self.post_message(self.TokenCountRequested(result))

    def set_token_count(self, attachment: Attachment, tokens: int) -> None:
        """Show the counted tokens of a file."""
        self._tokens = {attachment: tokens, **self._tokens}
        self._show()

    @property
    def results(self) -> dict[str, MentionResult]:
        """The mentions that have been read so far, with their results."""
        return dict(self._results)

    async def collect(
        self, mentions: Sequence[str], shown: Mapping[str, MentionResult], *, is_insisting: bool
    ) -> tuple[Attachment, ...]:
        """The files of these mentions, without reading again those in `shown`.

        Raises AttachmentError if one cannot be attached. is_insisting: leave it out instead.
        """
        results = {
            # A file that was missing may be there now.
            each: await self._read(each) if isinstance(shown.get(each), MissingFileError | None) else shown[each]
            for each in mentions
        }
        if not is_insisting:
            for each in results.values():
                if isinstance(each, AttachmentError):
                    self._results |= results
                    raise each
        return tuple({each.mention: each for each in results.values() if isinstance(each, Attachment)}.values())

    @work(exclusive=True)
    async def _read_new(self, mentions: Sequence[str]) -> None:
        for mention in mentions:
            if mention not in self._results:
                self._results[mention] = result = await self._read(mention)
                if isinstance(result, Attachment):
                    self.post_message(self.TokenCountRequested(result))
        self._show()

    async def _read(self, mention: str) -> MentionResult:
        return await asyncio.to_thread(_find, mention, self._folder)

    def _show(self) -> None:
        # While a path is being typed, it names no file yet, or a folder if it ends in a slash: no errors yet.
        shown = [
            each
            for mention, each in self._results.items()
            if not isinstance(each, MissingFileError) and not mention.endswith("/")
        ]
        self._shown = sorted(dict.fromkeys(shown), key=lambda each: not self._is_problem(each))
        self.display = bool(shown)
        self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._shown)

    def render(self) -> Content:
        """As many files as there are rows for, problems first, and the number of hidden ones."""
        width, rows = self.content_size
        lines = [self._line(each) for each in self._shown[:rows]]
        if lines and (hidden := len(self._shown) - rows) > 0:
            more = Content.styled(f" +{hidden} file{'s' * (hidden != 1)}", MUTED)
            lines[-1] = lines[-1].truncate(max(0, width - more.cell_length), ellipsis=True) + more
        return Content("\n").join(lines)

    def _is_problem(self, result: Attachment | AttachmentError) -> bool:
        return isinstance(result, AttachmentError) or self._is_too_long(result)

    def _is_too_long(self, attachment: Attachment) -> bool:
        return self._context_tokens is not None and self._tokens.get(attachment, 0) > self._context_tokens

    def _line(self, result: Attachment | AttachmentError) -> Content:
        """Most important part first, because a narrow window cuts off the end."""
        if isinstance(result, AttachmentError):
            return Content.styled(str(result), "$text-error")
        tokens = self._tokens.get(result)
        estimate = f"about {1 + len(result.text) // ESTIMATED_CHARACTERS_PER_TOKEN:,} tokens"
        count = estimate if tokens is None else f"{tokens:,} token{'s' * (tokens != 1)}"
        if self._is_too_long(result):
            problem = f"too long · {result.name} · {count}, context {self._context_tokens:,}"
            return Content.styled(problem, "$text-error") + Content.styled(f" · {result.size_text}", MUTED)
        return Content.styled(f"{result.name} · {count} · {result.size_text}", MUTED)


def _find(mention: str, folder: Path) -> MentionResult:
    try:
        return attachments.read_mention(mention, folder)
    except AttachmentError as error:
        return error
