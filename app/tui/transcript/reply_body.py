"""The Markdown text of a reply on the screen, which grows while it streams in."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Callable, Sequence
from functools import partial

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from app.tui.transcript.code_block import CodeBlock
from app.tui.transcript.flow import FlowRow, wrap_rows
from app.tui.transcript.markdown import CodePiece, GrowingMarkdown, Piece, TextPiece, as_rows, rows_of
from app.tui.transcript.scrollbarless import Scrollbarless
from app.tui.transcript.text_block import TextBlock

LONG_CHARACTERS = 4_000
"""A shorter text is parsed in a few milliseconds."""


class MarkdownBody(Scrollbarless, Vertical):
    """One widget per piece of Markdown. Widgets of unchanged pieces are left alone."""

    def __init__(self) -> None:
        super().__init__(classes="reply-text")
        self._markdown = GrowingMarkdown()
        self._pieces: list[Piece] = []
        self._finished_source: str | None = None
        """The whole text that the pieces were made from; None while it streams in."""
        self._widgets: list[TextBlock] = [TextBlock()]
        """Starts with one widget, so that the first text need not wait for one to be mounted."""

    def compose(self) -> ComposeResult:
        yield from self._widgets

    def render(self) -> Content:
        """Empty, because Textual would show the widget's name in a reply without text."""
        return Content()

    async def append(self, text: str) -> None:
        """Append text, which must be sanitised."""
        characters = self._markdown.open_characters + len(text)
        await self._show(await self._parse(partial(self._markdown.append, text), characters))

    async def finish(self, source: str) -> None:
        """Show the whole text, parsed from scratch."""
        await self._show(await self._parse(partial(self._markdown.parse_whole, source), len(source)))
        self._finished_source = source
        for widget in self._widgets:
            if isinstance(widget, CodeBlock):
                widget.finish()

    def rows(self, source: str) -> list[FlowRow]:
        """The whole text as rows. Reuses the shown pieces, with their wrapped lines, if they were made from it."""
        return rows_of(self._pieces) if source == self._finished_source else as_rows(source)

    async def _parse(self, parse: Callable[[], list[Piece]], characters: int) -> list[Piece]:
        """Parse and wrap: a long text in a thread, so that the app stays responsive."""
        if characters < LONG_CHARACTERS:
            return parse()
        shown, width = {id(piece) for piece in self._pieces}, self.content_size.width

        def parse_and_wrap() -> list[Piece]:
            pieces = parse()
            for piece in pieces:
                if width and isinstance(piece, TextPiece) and id(piece) not in shown:
                    wrap_rows(piece.rows, width)
            return pieces

        return await to_thread(parse_and_wrap)

    async def _show(self, pieces: Sequence[Piece]) -> None:
        for number, piece in enumerate(pieces):
            if number < len(self._pieces) and piece == self._pieces[number]:
                continue
            widget = self._widgets[number] if number < len(self._widgets) else None
            if isinstance(piece, CodePiece) and isinstance(widget, CodeBlock):
                widget.show_code(piece)
            elif isinstance(piece, TextPiece) and widget and not isinstance(widget, CodeBlock):
                widget.show(piece.rows)
            else:
                await self._replace(number, pieces[number:])
                break
        else:
            await self._drop(len(pieces))
        self._pieces = list(pieces)

    async def _replace(self, number: int, pieces: Sequence[Piece]) -> None:
        """Replace the widgets from this number on."""
        await self._drop(number)
        new = [CodeBlock(piece) if isinstance(piece, CodePiece) else TextBlock(piece.rows) for piece in pieces]
        self._widgets += new
        await self.mount_all(new)

    async def _drop(self, number: int) -> None:
        """Remove the widgets from this number on."""
        removed, self._widgets = self._widgets[number:], self._widgets[:number]
        for widget in removed:
            await widget.remove()
