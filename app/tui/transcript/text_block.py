"""One widget for many rows of text. It wraps them itself and draws only the visible lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.geometry import Offset, Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual

from app.text.words import word_at
from app.tui.transcript.flow import FlowRow, RenderedLine, wrap_rows
from app.tui.transcript.scrollbarless import Scrollbarless


@dataclass(frozen=True, slots=True)
class CachedStrip:
    """A drawn line, and what it was drawn from."""

    line: RenderedLine
    style: Style
    selection: tuple[int, int] | None
    """Start and end of the selected characters; an end of -1 means the end of the line."""
    strip: Strip


class TextBlock(Scrollbarless):
    """As high as its wrapped rows. New rows cost a layout only if the number of lines changes."""

    DEFAULT_CSS = """
    TextBlock { width: 1fr; height: auto; }
    """

    @dataclass
    class LinkClicked(Message):
        """A link in the text was clicked."""

        address: str

    def __init__(self, rows: Sequence[FlowRow] = (), *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self.rows = rows
        self._wrapped: tuple[int, list[RenderedLine]] | None = None
        """The width of the last wrapping, and its lines."""
        self._strips: dict[int, CachedStrip] = {}

    def show(self, rows: Sequence[FlowRow]) -> None:
        """Replace the rows."""
        old_height = len(self._lines) if self.size.width else None
        self.rows, self._wrapped = rows, None
        self.refresh(layout=old_height is None or len(self._lines) != old_height)

    @property
    def _lines(self) -> list[RenderedLine]:
        return self._lines_at(self.content_size.width)

    def _lines_at(self, width: int) -> list[RenderedLine]:
        if self._wrapped is None or self._wrapped[0] != width:
            self._wrapped = width, wrap_rows(self.rows, width)
        return self._wrapped[1]

    def position_at(self, line: int) -> tuple[int, float]:
        """The row of a line, and its position in the row, which stays the same at another width."""
        for number, row in enumerate(self.rows):
            count = len(row.wrap(self.content_size.width))
            if line < count:
                return number, row.position_at(self.content_size.width, line)
            line -= count
        return len(self.rows), 0

    def line_at(self, position: tuple[int, float]) -> int:
        """The line with this position, at the present width."""
        number, offset = position
        width = self.content_size.width
        above = sum(len(row.wrap(width)) for row in self.rows[:number])
        return above + (self.rows[number].line_at(width, offset) if number < len(self.rows) else 0)

    def render(self) -> Content:
        return Content("\n").join(line.content for line in self._lines)

    def render_line(self, y: int) -> Strip:
        """Draw one line. Textual asks only for those in the window."""
        style, lines = self.visual_style, self._lines
        if y >= len(lines) or not self.size.width:
            return Strip.blank(self.size.width, style.rich_style)
        line = lines[y]
        selection = self.text_selection.get_span(y) if self.text_selection else None
        cached = self._strips.get(y)
        if cached is None or cached.line is not line or cached.style != style or cached.selection != selection:
            strip = self._draw(line.content, style, selection, y)
            cached = self._strips[y] = CachedStrip(line, style, selection, strip)
        return cached.strip

    def _draw(self, content: Content, style: Style, selection: tuple[int, int] | None, y: int) -> Strip:
        if selection is not None:
            start, end = selection
            selection_style = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            content = content.stylize(selection_style, start, None if end < 0 else end)
        strips = Visual.to_strips(self, content, self.size.width, 1, style, apply_selection=False)
        return strips[0].apply_offsets(0, y)

    def notify_style_update(self) -> None:
        """Draw all lines again: another theme has other colours for the same names."""
        super().notify_style_update()
        self._strips.clear()

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines_at(width))

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text, with wrapped lines joined again."""
        parts: list[str] = []
        for y, line in enumerate(self._lines):
            if (span := selection.get_span(y)) is None:
                continue
            start, end = span
            if parts and line.joiner is not None:
                parts.append(line.joiner)
                start = max(start, line.prefix_length)
            elif parts:
                parts.append("\n")
            parts.append(line.content.plain[start : None if end < 0 else end].rstrip())
        return "".join(parts), "\n"

    def on_click(self, event: events.Click) -> None:
        """Select a word with two clicks, and a line of the text, however it is wrapped, with three."""
        widget, offset = self.screen.get_widget_and_offset_at(event.screen_x, event.screen_y)
        if widget is not self or event.chain not in (2, 3):
            return
        event.stop()
        event.prevent_default()  # Textual would select the whole widget
        if offset is None or offset.y >= len(self._lines):
            return
        selection = self._word_selection(offset) if event.chain == 2 else self._row_selection(offset.y)
        self.screen.selections = {self: selection}

    def _word_selection(self, offset: Offset) -> Selection:
        start, end = word_at(self._lines[offset.y].content.plain, offset.x)
        return Selection(Offset(start, offset.y), Offset(end, offset.y))

    def _row_selection(self, y: int) -> Selection:
        """The text between two line breaks, without its bullet or other prefix."""
        first, last, lines = y, y, self._lines
        while first and lines[first].joiner is not None:
            first -= 1
        while last + 1 < len(lines) and lines[last + 1].joiner is not None:
            last += 1
        return Selection(Offset(lines[first].prefix_length, first), Offset(len(lines[last].content), last))

    def action_link(self, address: str) -> None:
        self.post_message(self.LinkClicked(address))
