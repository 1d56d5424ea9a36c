"""The prompt: where the person types."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rich.text import Text
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widgets import TextArea

from app.keys import NEWLINE_KEYS, PROMPT_KEYS
from app.sanitise import sanitise_cells

PASTE_SHOWN_CHARACTERS = 4000
"""A longer paste is shown collapsed: wrapping a megabyte in a text area takes seconds, on every key."""


class Prompt(TextArea):
    """A text area that grows up to ten rows, sends on enter and remembers what was sent.

    A collapsed paste stands as one token in the text, and `whole_text` has it in full.
    """

    BINDINGS = PROMPT_KEYS

    @dataclass
    class Submitted(Message):
        """The person sends `text`; the prompt is empty again and waits."""

        text: str

    class Refused(Message):
        """The person wants to send while a reply is awaited; the prompt keeps the text."""

    class FollowRequested(Message):
        """End was pressed where it has nothing to do in the prompt."""

    @dataclass
    class PageRequested(Message):
        """The transcript is to scroll by so many pages, up when negative."""

        pages: int

    def __init__(self) -> None:
        super().__init__(
            id="prompt",
            placeholder="Message · ctrl+j: new line",
            tab_behavior="focus",
            highlight_cursor_line=False,
        )
        self._pastes: dict[str, str] = {}
        self._sent: list[str] = []
        self._place: int | None = None
        """Which of the sent prompts is shown; None: what the person is writing."""
        self._draft = ""
        self.is_waiting = False
        """Whether a reply is awaited; set back by whoever receives it."""

    @property
    def whole_text(self) -> str:
        """The text with every collapsed paste in full."""
        if not self._pastes:
            return self.text
        tokens = "|".join(map(re.escape, self._pastes))
        return re.sub(tokens, lambda match: self._pastes[match[0]], self.text)

    def discard(self) -> None:
        """Empty the prompt; up brings the text back."""
        self._place = None
        self._draft = ""
        if self.text.strip() and self._sent[-1:] != [self.text]:
            self._sent.append(self.text)
        self.load_text("")

    def offer(self, text: str) -> None:
        """Put `text` into the prompt if it is empty; `up` brings it in any case if it was sent."""
        if not self.text:
            self._insert_whole(text)

    def action_send(self) -> None:
        """Send the text, unless it is empty or a reply is awaited.

        The prompt is emptied at once: what is typed next belongs to the next message.
        """
        text = self.whole_text.rstrip()
        if not text:
            return
        if self.is_waiting:
            self.post_message(self.Refused())
            return
        self.is_waiting = True
        self.discard()
        self.post_message(self.Submitted(text))

    def action_newline(self) -> None:
        """Break the line at the cursor."""
        self.replace("\n", *self.selection, maintain_selection_offset=False)

    def action_earlier(self) -> None:
        """Up; in the first row, the prompt sent before."""
        if self.cursor_at_first_line and self._sent and self._place != 0:
            if self._place is None:
                self._draft = self.text
            self._show(len(self._sent) - 1 if self._place is None else self._place - 1)
        else:
            self.action_cursor_up()

    def action_later(self) -> None:
        """Down; in the last row, the prompt sent after, and at the end what was being written."""
        if self.cursor_at_last_line and self._place is not None:
            self._show(self._place + 1 if self._place + 1 < len(self._sent) else None)
        else:
            self.action_cursor_down()

    def action_end(self) -> None:
        """The end of the line; there already: tell whoever listens."""
        if self.cursor_at_end_of_line:
            self.post_message(self.FollowRequested())
        else:
            self.action_cursor_line_end()

    def action_page(self, pages: int) -> None:
        """Page keys are for the transcript; the prompt is never higher than a page."""
        self.post_message(self.PageRequested(pages))

    def render_line(self, y: int) -> Strip:
        """Nothing where there is no column: Textual would divide the placeholder by it."""
        return super().render_line(y) if self.content_size.width else Strip.blank(0)

    def get_line(self, line_index: int) -> Text:
        """The line as it is drawn: what was pasted is kept as it is, and cannot command the terminal."""
        line = super().get_line(line_index)
        return Text(sanitise_cells(line.plain), end="", no_wrap=True)

    async def _on_key(self, event: events.Key) -> None:
        """Enter and newline in the order of typing.

        A binding is handled by the app, ahead of characters that still wait for this widget or behind ones
        typed after it: in a burst the message would go out without its end.
        """
        if event.key == "enter":
            self.action_send()
        elif event.key in NEWLINE_KEYS:
            self.action_newline()
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        self._insert_whole(event.text.replace("\r\n", "\n").replace("\r", "\n"))

    def _insert_whole(self, text: str) -> None:
        """Insert at the cursor, collapsed if it is long."""
        if len(text) > PASTE_SHOWN_CHARACTERS:
            lines = text.count("\n") + 1
            token = f"[pasted text {len(self._pastes) + 1}: {len(text):,} characters, {lines:,} lines]"
            self._pastes[token] = text
            text = token
        self.replace(text, *self.selection, maintain_selection_offset=False)

    def _show(self, place: int | None) -> None:
        self._place = place
        self.load_text(self._draft if place is None else self._sent[place])
        self.move_cursor(self.document.end)
