"""The prompt: where the person types."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from textual import events, on, work
from textual.binding import Binding, BindingsMap, BindingType
from textual.content import Content
from textual.document._document import Location
from textual.message import Message
from textual.widgets import TextArea

from app.core import slash
from app.core.attachments import Attachment, mention_of, mentions
from app.core.completion import Candidate, Completions, PartialPath, complete, list_files
from app.core.dialogue import Dialogue
from app.core.dropped_paths import dropped_paths
from app.core.earlier_prompts import EarlierPrompts
from app.core.prompt_history import PromptHistory
from app.core.queued_messages import QueuedMessage, joined
from app.settings.keys import NEWLINE_KEYS, PROMPT_KEYS
from app.tui.keys import bindings, own_keys
from app.tui.prompt.attachment_line import AttachmentLine, MentionResult
from app.tui.prompt.completion_list import CompletionList
from app.tui.prompt.long_text_area import LongTextArea

PLACEHOLDER = ("Message", "/ commands", "@ file")
"""What an empty prompt says, as much as its width has room for. The key for a new line follows."""


class Prompt(LongTextArea):
    """A text area that grows up to ten rows and remembers what was sent.

    While the list of completions above is open, it gets enter, tab, escape, up and down.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(PROMPT_KEYS),
        # After those of the table, which have alt and an arrow while the prompt is empty.
        Binding("alt+left,alt+b", "cursor_word_left", show=False),
        Binding("alt+right,alt+f", "cursor_word_right", show=False),
        Binding("alt+d,ctrl+delete", "delete_word_right", show=False),
    ]

    _dialogue: Dialogue

    @dataclass
    class Submitted(Message):
        """The person sends `text`; the prompt is empty again."""

        text: str
        mentions: Sequence[str] = ()
        """Of files, by the person; the text of a file or a paste mentions none."""
        known_files: Mapping[str, MentionResult] = field(default_factory=dict)
        """The mentions that have been read already."""
        is_edit: bool = False
        """Whether it replaces the last message."""

    @dataclass
    class CommandEntered(Message):
        """The person runs a command."""

        parsed: slash.ParsedCommand
        mentions: Sequence[str] = ()
        """Of files, as in Submitted."""

    @dataclass
    class Refused(Message):
        """What was typed cannot be sent now; the prompt keeps it."""

        reason: str

    class FollowRequested(Message):
        """End was pressed at the end of a line."""

    @dataclass
    class PageRequested(Message):
        pages: int
        """How far to scroll the transcript; negative: up."""

    @dataclass
    class WalkRequested(Message):
        step: int
        """1: show the next version of the chat; -1: the previous one."""

    class EditRequested(Message):
        """The last message should be put into the prompt."""

    def __init__(
        self,
        history: PromptHistory,
        completions: CompletionList,
        attachments: AttachmentLine,
        names_for: slash.NamesFor,
    ) -> None:
        super().__init__(
            id="prompt",
            tab_behavior="focus",
            highlight_cursor_line=False,
        )
        self._send_keys: tuple[str, ...] = ("enter",)
        self._newline_keys: tuple[str, ...] = NEWLINE_KEYS
        self._key_hint = ""
        self._earlier = EarlierPrompts(history)
        self._completions = completions
        self._attachments = attachments
        self._names_for = names_for
        self._completed_at: tuple[str, Location] = ("", (0, 0))
        """The text and the cursor that the list of completions is for."""
        self._inserted_text = ""
        """The last text that was not typed: it gets no completions."""
        self._before_edit: str | None = None
        """The text before the last message was put here to be edited; None: it is not being edited."""

    def follow(self, dialogue: Dialogue) -> None:
        """Ask this dialogue whether a message can be sent. Called once, before mounting."""
        self._dialogue = dialogue

    def use_keys(self, send: tuple[str, ...], newline: tuple[str, ...]) -> None:
        """Use other keys for the two that are handled here and not by bindings."""
        self._send_keys, self._newline_keys = send, newline
        self._key_hint = f"{send[0]}: send" if "enter" in newline else f"{newline[0]}: new line"
        self._fit_placeholder()

    def on_resize(self) -> None:
        self._fit_placeholder()

    def _fit_placeholder(self) -> None:
        hints = [*PLACEHOLDER, self._key_hint]
        while len(hints) > 1 and len(" · ".join(hints)) > self.content_size.width:
            hints.pop()
        self.placeholder = " · ".join(hints)

    # The text

    @property
    def is_editing(self) -> bool:
        """Whether the last message is being edited."""
        return self._before_edit is not None

    def discard(self) -> None:
        """Empty the prompt, or stop editing the last message; up brings the text back."""
        self._earlier.leave(self._collapsed, self.whole_text)
        self._end_edit(self._before_edit or "")

    def keep_draft(self) -> None:
        """Put what was typed and not sent into the history, from where up brings it back in the next run."""
        for text in (self._before_edit, *self._earlier.drafts(self.text)):
            if text and text.strip():
                self._earlier.keep_draft(self._long_texts.whole(text).rstrip())

    def offer(self, text: str, mentioned: Sequence[str]) -> None:
        """Put a message into the prompt, unless that has a text. A message that was sent is in the history too.

        mentioned: the files that the person has mentioned in it.
        """
        if not self.text:
            self.put(slash.typed_as(text), mentioned)

    def put(self, text: str, mentioned: Sequence[str] = ()) -> None:
        """Replace the text. mentioned: as for `offer`."""
        self._load("")
        self._insert(self._long_texts.collapse_own(text, mentioned))
        self._inserted_text = self.text

    def take_back(self, queued: Sequence[QueuedMessage]) -> None:
        """Put messages that waited to be sent back here, above what is being typed."""
        draft = [QueuedMessage(self.whole_text, self._long_texts.mentions(self.text))] if self.text.strip() else []
        message = joined([*queued, *draft])
        self.put(slash.typed_as(message.text), message.mentions)

    def begin(self, text: str) -> None:
        """Type `text` for the person; up brings back what was there."""
        if self.is_editing:
            self.discard()  # which restores the text from before the edit
        self.discard()
        self._insert(text)
        self.focus()

    def rewrite(self, text: str) -> None:
        """Replace the text by one that the person made from it.

        Mentions that were only part of a long text, such as a pasted one, still attach nothing.
        """
        mentioned, all_before = self._long_texts.mentions(self.text), mentions(self.whole_text)
        mentioned = [mention for mention in mentions(text) if mention in mentioned or mention not in all_before]
        self.select_all()
        self._insert(self._long_texts.collapse_own(text, mentioned))

    def begin_edit(self, text: str, mentioned: Sequence[str], sent: Sequence[Attachment]) -> None:
        """Put the last message here, to be edited; esc brings back what was there.

        mentioned: as for `offer`. sent: the files that were sent with it, which are not read again.
        """
        if not self.is_editing:
            self._before_edit = self.text
        self._attachments.restore(sent)
        self.put(slash.typed_as(text), mentioned)
        self.border_title = Content(f"Editing your last message · {self._send_keys[0]} resends · esc cancels")

    def _end_edit(self, text: str) -> None:
        self._before_edit = None
        self._load(text)

    def _load(self, text: str) -> None:
        if not self.is_editing:
            self.border_title = None
        self._inserted_text = text
        self.load_text(text)
        self.move_cursor(self.document.end)

    # Sending

    def action_send(self) -> None:
        """Send the message, or run the command.

        The prompt is emptied at once: what is typed next belongs to the next message.
        """
        text = self.whole_text.rstrip()
        if not text:
            return
        mentioned = self._long_texts.mentions(self.text)
        match slash.parse(text, self._names_for):
            case slash.Refusal(reason):
                self.post_message(self.Refused(reason))
            case slash.ParsedCommand() as parsed:
                self.discard()
                self.post_message(self.CommandEntered(parsed, mentioned))
            case slash.MessageText(message) if self._dialogue.can_queue and not self.is_editing:
                self.discard()
                self._dialogue.queue(QueuedMessage(message, mentioned))
            case slash.MessageText() if self._dialogue.phase.is_busy:
                self.post_message(self.Refused(f"{self._dialogue.why_busy} Your text stays in the prompt."))
            case slash.MessageText(message):
                self._dialogue.begin_message()
                submitted = self.Submitted(message, mentioned, self._attachments.results, self.is_editing)
                self.discard()
                self.post_message(submitted)

    # Keys

    def action_newline(self) -> None:
        self._insert("\n")

    def action_earlier(self) -> None:
        """Move up; in the first row, take back the messages that wait to be sent, or show the previous prompt."""
        is_at_top = self.cursor_at_first_line and self._earlier.is_at_new and not self.is_editing
        if is_at_top and (queued := self._dialogue.take_back_queue()):
            self.take_back(queued)
        elif not (self.cursor_at_first_line and self._show_earlier(-1)):
            self.action_cursor_up()

    def action_later(self) -> None:
        """Move down; in the last row, show the next prompt, and after the last one the new one."""
        if not (self.cursor_at_last_line and self._show_earlier(1)):
            self.action_cursor_down()

    def _show_earlier(self, step: int) -> bool:
        """Show the prompt before (-1) or after this one. False if there is none."""
        text = self._earlier.walk(step, self._collapsed)
        if text is not None:
            self.put(text)
        return text is not None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave the keys that walk the versions to the text while there is one."""
        return not (action == "walk" and self.text)

    def action_walk(self, step: int) -> None:
        """Show another version of the chat; -1: the previous one."""
        self.post_message(self.WalkRequested(step))

    def action_edit_last(self) -> None:
        """Put the last message here, to edit it."""
        self.post_message(self.EditRequested())

    def action_end(self) -> None:
        """Go to the end of the line; from there, let the transcript follow the reply."""
        if self.cursor_at_end_of_line:
            self.post_message(self.FollowRequested())
        else:
            self.action_cursor_line_end()

    def action_page(self, pages: int) -> None:
        """Scroll the transcript: the prompt is never longer than a page."""
        self.post_message(self.PageRequested(pages))

    async def _on_key(self, event: events.Key) -> None:
        """Handle enter, newline and the keys of the text here, in the order of typing.

        Bindings are handled by the app, before characters that this widget has not processed yet or after ones
        that were typed later: a message typed in a burst would be sent without its end.
        """
        if self._completions_used(event.key):
            pass
        elif event.key in self._send_keys:
            self.action_send()
        elif event.key in self._newline_keys:
            self.action_newline()
        elif event.key == "escape" and self._before_edit is not None and not self._dialogue.phase.is_replying:
            self._end_edit(self._before_edit)
        elif not await self._has_run_binding(event.key):
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    @cached_property
    def _text_keys(self) -> BindingsMap:
        bound = self._bindings.copy()
        bound.apply_keymap(own_keys(self.app))
        return bound

    async def _has_run_binding(self, key: str) -> bool:
        """Run what a key does in the text. False if it does nothing there."""
        for binding in self._text_keys.key_to_bindings.get(key, ()):
            if not binding.priority and await self.app.run_action(binding.action, self):
                self._restart_blink()
                return True
        return False

    async def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        self._paste(event.text)

    def action_paste(self) -> None:
        self._paste(self.app.clipboard)

    def _paste(self, text: str) -> None:
        pasted = text.replace("\r\n", "\n").replace("\r", "\n")
        if paths := dropped_paths(pasted):
            self._insert(self._dropped(paths))
            return
        if min(self.selection) == (0, 0):
            pasted = slash.from_paste(pasted)
        self._insert(self._long_texts.collapse_pasted(pasted))

    def _dropped(self, paths: Sequence[str]) -> str:
        """What to insert for files that were dropped on the window: mentions, or in a command the paths."""
        row, column = min(self.selection)
        before = self.document.get_line(row)[:column]
        if row == 0 and before.startswith("/") and not before.startswith("//"):
            return " ".join(paths)
        text = " ".join(map(mention_of, paths)) + " "
        if before.endswith("@"):
            return text[1:]
        return f" {text}" if before and not before[-1].isspace() else text

    # Completion

    def _completions_used(self, key: str) -> bool:
        """Whether the list of completions has handled a key."""
        if self._completions.offered is None:
            return False
        if self._completed_at != (self.text, self.cursor_location):
            self._completions.offer(None)
            self._offer_completions()
        offered, chosen = self._completions.offered, self._completions.chosen
        if offered is None:
            return False
        match key:
            case "up" | "down":
                self._completions.move(1 if key == "down" else -1)
            case "escape":
                self._completions.offer(None)
            case "enter" if chosen is not None and chosen.text != offered.typed:
                self.choose(chosen)
            case "tab" if (candidate := chosen or self._completions.top) is not None:
                self.choose(candidate)
            case _:
                return False
        return True

    def choose(self, candidate: Candidate) -> None:
        """Complete what was typed with a candidate from the list."""
        offered = self._completions.offered
        if offered is None:
            return
        row, column = self.cursor_location
        start = (row, column - len(offered.typed))
        self._completions.offer(None)
        self.replace(candidate.text + candidate.suffix, start, (row, column), maintain_selection_offset=False)

    @on(TextArea.Changed)
    def _changed(self) -> None:
        self._attachments.show_mentions(self._long_texts.mentions(self.text))
        if self.text == self._inserted_text:
            self._completions.offer(None)
        else:
            self._inserted_text = ""
            self._offer_completions()

    @on(TextArea.SelectionChanged)
    def _cursor_moved(self) -> None:
        text, cursor = self._completed_at
        if self.text == text and self.cursor_location != cursor:
            self._completions.offer(None)

    def _offer_completions(self) -> None:
        """Offer what completes the word before the cursor, if the cursor is at its end."""
        row, column = self.cursor_location
        self._completed_at = (self.text, self.cursor_location)
        line = self.document.get_line(row)
        is_word_end = not line[column : column + 1].strip()
        completions = complete(line[:column], row == 0, self._names_for) if is_word_end else None
        if isinstance(completions, PartialPath):
            self._offer_files(completions)
        else:
            self._completions.offer(completions)

    @work(exclusive=True)
    async def _offer_files(self, partial: PartialPath) -> None:
        completed_at = self._completed_at
        completions: Completions | None = await asyncio.to_thread(list_files, partial, Path())
        if self._completed_at == completed_at == (self.text, self.cursor_location):
            self._completions.offer(completions)
