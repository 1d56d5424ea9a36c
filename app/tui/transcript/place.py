"""The place that a person reads at: a line of text, which is found again after the window has another size."""

from __future__ import annotations

from dataclasses import dataclass

from textual.errors import NoWidget
from textual.geometry import Region
from textual.widget import Widget
from textual.widgets import Static

from app.tui.transcript.text_block import TextBlock

PROBED_COLUMNS = (0, 8)
"""Beyond the first column, because code blocks in lists are indented."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line at the top of a scrolling container."""

    widget: Widget
    position: tuple[int, float]
    """Of a TextBlock; otherwise the share of its height that is above."""
    lead: int
    """Lines between the top and this line: margins, for example."""

    def line_in(self, stack: Widget) -> int | None:
        """The line of `stack` that has to be at the top; None if the text is no longer shown."""
        if not self.widget.is_attached or not self.widget.region.height:
            return None
        top = self.widget.region.y - stack.region.y + self.widget.gutter.top
        if isinstance(self.widget, TextBlock):
            return top + self.widget.line_at(self.position) - self.lead
        return top + round(self.position[1] * self.widget.content_size.height) - self.lead


def place_at_top(container: Widget) -> Place | None:
    """The first line of text in view. None if there is none."""
    area = container.content_region
    for y in range(area.height):
        for x in PROBED_COLUMNS:
            try:
                widget, region = container.screen.get_widget_at(area.x + x, area.y + y)
            except NoWidget:
                continue
            if isinstance(widget, TextBlock | Static) and container in widget.ancestors:
                return _place(widget, region, area.y, y)
    return None


def _place(widget: Widget, region: Region, top: int, y: int) -> Place:
    line = max(0, top + y - region.y - widget.gutter.top)
    lead = region.y + widget.gutter.top + line - top
    if isinstance(widget, TextBlock):
        return Place(widget, widget.position_at(line), lead)
    return Place(widget, (0, line / max(1, widget.content_size.height)), lead)
