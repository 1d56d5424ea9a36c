"""Rows of text as one widget that wraps them itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual

from app.tui.transcript.flow import Fitted, Row, fit
from app.tui.transcript.laid_out_once import LaidOutOnce


@dataclass(frozen=True, slots=True)
class Drawn:
    """A line as it was drawn, and what it was drawn from."""

    line: Fitted
    style: Style
    span: tuple[int, int] | None
    """What of it is selected."""
    strip: Strip


class TextBlock(LaidOutOnce):
    """As high as its rows are at its width. What grows within its last line costs no layout."""

    DEFAULT_CSS = """
    TextBlock { width: 1fr; height: auto; }
    """

    @dataclass
    class LinkClicked(Message):
        """Somebody wants to see where a link leads."""

        address: str

    def __init__(self, rows: Sequence[Row] = (), *, classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self.rows = rows
        self._fitted: tuple[int, list[Fitted]] | None = None
        """The lines of all rows, and the width they fit."""
        self._drawn: dict[int, Drawn] = {}

    def show(self, rows: Sequence[Row]) -> None:
        """Show other rows."""
        before = len(self._lines) if self.size.width else None
        self.rows, self._fitted = rows, None
        self.refresh(layout=before is None or len(self._lines) != before)

    @property
    def _lines(self) -> list[Fitted]:
        return self._lines_at(self.content_size.width)

    def _lines_at(self, width: int) -> list[Fitted]:
        if self._fitted is None or self._fitted[0] != width:
            self._fitted = width, fit(self.rows, width)
        return self._fitted[1]

    def render(self) -> Content:
        """All lines."""
        return Content("\n").join(line.content for line in self._lines)

    def render_line(self, y: int) -> Strip:
        """One line; of thousands, only those in the window are ever drawn."""
        style, lines = self.visual_style, self._lines
        if y >= len(lines):
            return Strip.blank(self.size.width, style.rich_style)
        line = lines[y]
        span = self.text_selection.get_span(y) if self.text_selection else None
        drawn = self._drawn.get(y)
        if drawn is None or drawn.line is not line or drawn.style != style or drawn.span != span:
            drawn = self._drawn[y] = Drawn(line, style, span, self._strip(line.content, style, span, y))
        return drawn.strip

    def _strip(self, content: Content, style: Style, span: tuple[int, int] | None, y: int) -> Strip:
        if span is not None:
            start, end = span
            selection = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            content = content.stylize(selection, start, None if end < 0 else end)
        strips = Visual.to_strips(self, content, self.size.width, 1, style, apply_selection=False)
        return strips[0].apply_offsets(0, y)

    def notify_style_update(self) -> None:
        """Colours by name may mean others now."""
        super().notify_style_update()
        self._drawn.clear()

    def get_content_width(self, container: Size, viewport: Size) -> int:
        """All there is."""
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """A line each."""
        return len(self._lines_at(width))

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """What was wrapped for the screen is one line again."""
        parts: list[str] = []
        for y, line in enumerate(self._lines):
            if (span := selection.get_span(y)) is None:
                continue
            start, end = span
            if parts and line.joint is not None:
                parts.append(line.joint)
                start = max(start, line.margin)
            elif parts:
                parts.append("\n")
            parts.append(line.content.plain[start : None if end < 0 else end].rstrip())
        return "".join(parts), "\n"

    def action_link(self, address: str) -> None:
        """Called when a link is clicked on."""
        self.post_message(self.LinkClicked(address))
