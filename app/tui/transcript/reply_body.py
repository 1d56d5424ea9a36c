"""The text of a reply on the screen, as it grows."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Callable, Sequence
from functools import partial

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from app.tui.transcript.code_block import CodeBlock
from app.tui.transcript.flow import Row, fit
from app.tui.transcript.laid_out_once import LaidOutOnce
from app.tui.transcript.markdown import Code, GrowingMarkdown, Piece, Text, as_rows, rows_of
from app.tui.transcript.text_block import TextBlock

LONG_CHARACTERS = 4_000
"""Fewer are read in some milliseconds."""


class ReplyText(LaidOutOnce, Vertical):
    """A widget for every piece of the Markdown; those that have settled are never touched again."""

    def __init__(self) -> None:
        super().__init__(classes="reply-text")
        self._markdown = GrowingMarkdown()
        self._pieces: list[Piece] = []
        self._whole: str | None = None
        """The text that the pieces were last read from as a whole."""
        self._widgets: list[TextBlock] = [TextBlock()]
        """One is there from the beginning: the first words then need not wait for it."""

    def compose(self) -> ComposeResult:
        """What is there at the beginning."""
        yield from self._widgets

    def render(self) -> Content:
        """Nothing of its own: a reply without a word has no pieces, and Textual would write the widget's name."""
        return Content()

    async def append(self, text: str) -> None:
        """Show more of the text, which must be sanitised."""
        characters = self._markdown.open_characters + len(text)
        await self._show(await self._read(partial(self._markdown.append, text), characters))

    async def finish(self, source: str) -> None:
        """Show the whole as it reads from its end."""
        await self._show(await self._read(partial(self._markdown.whole, source), len(source)))
        self._whole = source
        for widget in self._widgets:
            if isinstance(widget, CodeBlock):
                widget.finish()

    def rows(self, source: str) -> list[Row]:
        """The whole as rows, which are wrapped already if it is shown."""
        return rows_of(self._pieces) if source == self._whole else as_rows(source)

    async def _read(self, read: Callable[[], list[Piece]], characters: int) -> list[Piece]:
        """Pieces of so many characters, read and wrapped beside the app's own thread if that takes long."""
        if characters < LONG_CHARACTERS:
            return read()
        known, width = {id(piece) for piece in self._pieces}, self.content_size.width

        def read_and_wrap() -> list[Piece]:
            pieces = read()
            for piece in pieces:
                if width and isinstance(piece, Text) and id(piece) not in known:
                    fit(piece.rows, width)
            return pieces

        return await to_thread(read_and_wrap)

    async def _show(self, pieces: Sequence[Piece]) -> None:
        for number, piece in enumerate(pieces):
            if number < len(self._pieces) and piece == self._pieces[number]:
                continue
            widget = self._widgets[number] if number < len(self._widgets) else None
            if isinstance(piece, Code) and isinstance(widget, CodeBlock):
                widget.show_code(piece)
            elif isinstance(piece, Text) and widget and not isinstance(widget, CodeBlock):
                widget.show(piece.rows)
            else:
                await self._replace(number, pieces[number:])
                break
        else:
            await self._drop(len(pieces))
        self._pieces = list(pieces)

    async def _replace(self, number: int, pieces: Sequence[Piece]) -> None:
        """Other widgets from this one on."""
        await self._drop(number)
        new = [CodeBlock(piece) if isinstance(piece, Code) else TextBlock(piece.rows) for piece in pieces]
        self._widgets += new
        await self.mount_all(new)

    async def _drop(self, number: int) -> None:
        """No widgets from this one on."""
        gone, self._widgets = self._widgets[number:], self._widgets[:number]
        for widget in gone:
            await widget.remove()
