"""A text area in which long texts are placeholders."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual import events
from textual.document._document import EditResult, Location
from textual.document._edit import Edit
from textual.strip import Strip
from textual.widgets import TextArea
from textual.widgets.text_area import Selection

from app.core.long_texts import LongTexts
from app.text.sanitise import sanitise_cells
from app.text.words import word_at


class LongTextArea(TextArea):
    """A long text is collapsed to a placeholder such as `[pasted text 1: 9,000 characters, 80 lines]`, which is
    edited like a single letter; `whole_text` has it in full.
    """

    def __init__(self, **area: Any) -> None:
        """area: as for a TextArea."""
        # First, because TextArea's constructor validates a selection already.
        self._long_texts = LongTexts()
        super().__init__(**area)

    @property
    def whole_text(self) -> str:
        """The text with every long text in full."""
        return self._long_texts.whole(self.text)

    @property
    def _collapsed(self) -> str:
        """The text for the history: everything long is collapsed, with the mentions that it has now."""
        return self._long_texts.collapse_own(self.text, self._long_texts.mentions(self.text))

    @property
    def selected_text(self) -> str:
        """The selection with every long text in full, for use outside the prompt."""
        return self._long_texts.whole(super().selected_text)

    def action_cut(self) -> None:
        """Cut the selection, else the line, with every long text in full on the clipboard."""
        super().action_cut()
        if (whole := self._long_texts.whole(self.app.clipboard)) != self.app.clipboard:
            self.app.copy_to_clipboard(whole)

    def validate_selection(self, selection: Selection) -> Selection:
        """Move both ends out of placeholders: the cursor passes one like a single letter."""
        cursor = self.cursor_location
        return Selection(*(self._outside_placeholder(end, cursor) for end in selection))

    def _outside_placeholder(self, location: Location, cursor: Location) -> Location:
        """The other side of the placeholder than the cursor's; the nearer side if the cursor is at neither."""
        start, end = self._placeholder_sides(location)
        if cursor in (start, end):
            return start if cursor == end else end
        return min(start, end, key=lambda side: abs(side[1] - location[1]))

    def _insert(self, text: str) -> None:
        self.replace(text, *self.selection, maintain_selection_offset=False)

    def edit(self, edit: Edit) -> EditResult:
        """Edit the text. A placeholder is deleted whole, and nothing is inserted into one."""
        # When Textual deletes the last line, the end is in the row below it.
        start, end = edit.top, min(edit.bottom, self.document.end)
        if start == end:
            start = end = self._placeholder_sides(end)[1]
        else:
            start, end = self._placeholder_sides(start)[0], self._placeholder_sides(end)[1]
        return super().edit(Edit(edit.text, start, end, edit.maintain_selection_offset))

    def _placeholder_sides(self, location: Location) -> tuple[Location, Location]:
        """Start and end of the placeholder around a location; twice the location itself if there is none."""
        row, column = location
        for start, end in self._long_texts.spans(self.document.get_line(row)):
            if start < column < end:
                return (row, start), (row, end)
        return location, location

    # The mouse, and drawing

    def on_click(self, event: events.Click) -> None:
        """Select a word with two clicks, and a line with three."""
        if event.chain not in (2, 3):
            return
        event.stop()
        event.prevent_default()
        row, column = self.get_target_document_location(event)
        line = self.document.get_line(row)
        if event.chain == 2:
            start, end = word_at(line, column)
            self.selection = Selection((row, start), (row, end))
        else:
            self.selection = Selection((row, 0), (row, len(line)))

    def render_line(self, y: int) -> Strip:
        """Empty if the prompt has no columns: Textual divides by their number."""
        return super().render_line(y) if self.content_size.width else Strip.blank(0)

    def get_line(self, line_index: int) -> Text:
        """The line as it is drawn: control characters stay in the text, but never reach the terminal."""
        line = super().get_line(line_index)
        return Text(sanitise_cells(line.plain), end="", no_wrap=True)
