"""A list of rows."""

from __future__ import annotations

from textual.widgets import OptionList


class RowList(OptionList):
    """Textual's list, which moves by pages only where it has a page.

    Before it is laid out, and in a window too low for it, Textual looks for the highlighted row among none.
    """

    def action_page_up(self) -> None:
        if self.scrollable_content_region:
            super().action_page_up()  # type: ignore[no-untyped-call]

    def action_page_down(self) -> None:
        if self.scrollable_content_region:
            super().action_page_down()  # type: ignore[no-untyped-call]
