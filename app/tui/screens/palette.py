"""The command palette, and the list of themes."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.command import CommandList, CommandPalette
from textual.message import Message
from textual.widgets import Input, OptionList

from app.tui.screens.overlay import Overlay
from app.tui.screens.table import CLOSE


class Palette(CommandPalette, Overlay[None]):
    """Textual's palette, which runs one command and closes once, however fast its keys and clicks come."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "escape", "Close", tooltip="closes the palette")]

    def on_mount(self) -> None:
        """Say how to leave it in the frame, as a low window has no key line."""
        self.query_one("#--container").border_subtitle = CLOSE

    async def _on_message(self, message: Message) -> None:
        # What was on its way when the palette closed would run a second command, or search in what is gone.
        if self.is_active or not isinstance(message, Input.Changed | Input.Submitted | OptionList.OptionSelected):
            await super()._on_message(message)

    def _action_command_list(self, action: str) -> None:
        # As in RowList: without room, there is no page to move by.
        if "page" not in action or self.query_one(CommandList).scrollable_content_region:
            super()._action_command_list(action)
