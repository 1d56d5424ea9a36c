"""Markdown whose code blocks take the focus and can be copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.message import Message
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownBlock, MarkdownFence

from app.keys import CODE_KEYS
from app.markdown_text import markdown_parser


class CodeBlock(MarkdownFence, can_focus=True):
    """A code block in a reply. By tab, not by the mouse: a click leaves the prompt ready to type."""

    BINDINGS: ClassVar[list[BindingType]] = CODE_KEYS
    FOCUS_ON_CLICK = False

    @dataclass
    class CopyRequested(Message):
        """The code is to be copied."""

        code: str

    @dataclass
    class LeaveRequested(Message):
        """Back to the prompt, with what was typed."""

        typed: str

    def action_copy_code(self) -> None:
        """Ask for the code to be copied."""
        self.post_message(self.CopyRequested(self.code.rstrip("\n")))

    def action_leave(self) -> None:
        """Back to the prompt."""
        self.post_message(self.LeaveRequested(""))

    def on_key(self, event: events.Key) -> None:
        """What is typed belongs to the prompt."""
        if event.character and event.is_printable and event.key not in ("c", "y"):
            event.stop()
            self.post_message(self.LeaveRequested(event.character))


class ReplyMarkdown(Markdown):
    """The Markdown of a reply."""

    def __init__(self, source: str = "") -> None:
        super().__init__(source, open_links=False, parser_factory=markdown_parser)

    def get_block_class(self, block_name: str) -> type[MarkdownBlock]:
        """Code blocks are ours."""
        return CodeBlock if block_name in ("fence", "code_block") else super().get_block_class(block_name)
