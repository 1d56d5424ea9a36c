"""The prompt: where the person types."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.text import Text
from textual import events, on, work
from textual.document._document import EditResult, Location
from textual.document._edit import Edit
from textual.message import Message
from textual.strip import Strip
from textual.widgets import TextArea
from textual.widgets.text_area import Selection

from app.core import slash
from app.core.attachments import Attachment, mentions
from app.core.completion import Candidate, Completing, Place, complete, list_files
from app.core.dialogue import Dialogue
from app.core.long_texts import LongTexts
from app.core.prompt_history import PromptHistory
from app.settings.keys import NEWLINE_KEYS, PROMPT_KEYS
from app.text.sanitise import sanitise_cells
from app.tui.keys import bindings
from app.tui.prompt.attachment_line import AttachmentLine, MentionResult
from app.tui.prompt.completion_list import CompletionList

PLACEHOLDER = "Message · / commands · @ file · "


class Prompt(TextArea):
    """A text area that grows up to ten rows, sends on enter and remembers what was sent.

    A long text stands as one token, which is edited as if it were one letter, and `whole_text` has it in full.
    What begins with a slash is a command. The list above it has the keyboard only for enter, tab, escape and the
    arrows, while it is open.
    """

    BINDINGS = bindings(PROMPT_KEYS)

    _dialogue: Dialogue

    @dataclass
    class Submitted(Message):
        """The person sends `text`; the prompt is empty again and waits."""

        text: str
        mentions: Sequence[str] = ()
        """Of files, by the person; a long text that was pasted mentions none."""
        shown: Mapping[str, MentionResult] = field(default_factory=dict)
        """What they were, as far as that was known."""
        is_edit: bool = False
        """It takes the place of the last message."""

    @dataclass
    class Commanded(Message):
        """The person asks for a command."""

        run: slash.Run
        mentions: Sequence[str] = ()
        """Of files, by the person, as in what is sent."""

    @dataclass
    class Refused(Message):
        """What was typed cannot be sent now; the prompt keeps it."""

        words: str

    class FollowRequested(Message):
        """End was pressed where it has nothing to do in the prompt."""

    @dataclass
    class PageRequested(Message):
        """The transcript is to scroll by so many pages, up when negative."""

        pages: int

    @dataclass
    class WalkRequested(Message):
        """Another version of the chat is to be shown; -1: the one before."""

        step: int

    class EditRequested(Message):
        """The last message is to be changed."""

    def __init__(
        self,
        history: PromptHistory,
        completions: CompletionList,
        attachments: AttachmentLine,
        offered: slash.Offered,
    ) -> None:
        """offered: what only the running chat knows about the values of commands."""
        self._long = LongTexts()  # first: a text area has a selection from its beginning
        super().__init__(
            id="prompt",
            placeholder=f"{PLACEHOLDER}ctrl+j: new line",
            tab_behavior="focus",
            highlight_cursor_line=False,
        )
        self._send_keys: tuple[str, ...] = ("enter",)
        self._newline_keys: tuple[str, ...] = NEWLINE_KEYS
        self._history = history
        self._completions = completions
        self._attachments = attachments
        self._offered = offered
        self._looked_at: tuple[str, tuple[int, int]] = ("", (0, 0))
        """The text and the cursor for which the list is right."""
        self._put = ""
        """The text that was last put here at once; for what a person has not typed nothing is offered."""
        self._sent = list(history.entries)
        self._place: int | None = None
        """Which of the sent prompts is shown; None: what the person is writing."""
        self._drafts: dict[int | None, str] = {}
        """What the person has written at each place of the history, until something is sent."""
        self._before_edit: str | None = None
        """What stood here before the last message came to be changed; None: it is not being changed."""

    def follow(self, dialogue: Dialogue) -> None:
        """Ask this dialogue whether a message can be sent; called once, before anything is mounted."""
        self._dialogue = dialogue

    def use_keys(self, send: tuple[str, ...], newline: tuple[str, ...]) -> None:
        """Other keys for the two that are seen here before they are bindings."""
        self._send_keys, self._newline_keys = send, newline
        hint = f"{send[0]}: send" if "enter" in newline else f"{newline[0]}: new line"
        self.placeholder = PLACEHOLDER + hint

    # The text

    @property
    def whole_text(self) -> str:
        """The text with every long text in full."""
        return self._long.whole(self.text)

    @property
    def _collapsed(self) -> str:
        """The text as it may come back: what is long is one token, and mentions what it does now."""
        return self._long.collapse_own(self.text, self._long.mentions(self.text))

    @property
    def is_editing(self) -> bool:
        """Whether the last message is being changed."""
        return self._before_edit is not None

    def discard(self) -> None:
        """Empty the prompt, or leave the last message as it is; up brings the text back."""
        if self.text.strip() and self._sent[-1:] != [collapsed := self._collapsed]:
            self._sent.append(collapsed)
            self._history.add(self.whole_text.rstrip())
        self._place = None
        self._drafts.clear()
        self._end_edit(self._before_edit or "")

    def offer(self, text: str, mentioned: Sequence[str]) -> None:
        """Put a message into the prompt if that is empty; up brings it in any case if it was sent.

        mentioned: the files that the person has mentioned in it.
        """
        if not self.text:
            self.put(slash.typed(text), mentioned)

    def put(self, text: str, mentioned: Sequence[str] = ()) -> None:
        """Have `text` in the prompt, ready to go on with. mentioned: as for `offer`."""
        self._load("")
        self._put_in(self._long.collapse_own(text, mentioned))
        self._put = self.text

    def begin(self, text: str) -> None:
        """Type `text` for the person; what stood here is brought back by up."""
        if self.is_editing:
            self.discard()  # which brings back a draft from before
        self.discard()
        self._put_in(text)
        self.focus()

    def rewrite(self, text: str) -> None:
        """Have `text` in place of what stands here, out of which the person has made it."""
        mentioned, named = self._long.mentions(self.text), mentions(self.whole_text)
        mentioned = [each for each in mentions(text) if each in mentioned or each not in named]
        self.select_all()
        self._put_in(self._long.collapse_own(text, mentioned))

    def begin_edit(self, text: str, mentioned: Sequence[str], sent: Sequence[Attachment]) -> None:
        """Have the last message here to be changed; escape brings back what stood here.

        mentioned: as for `offer`. sent: those of the files that stay as they were.
        """
        if not self.is_editing:
            self._before_edit = self.text
        self._attachments.restore(sent)
        self.put(slash.typed(text), mentioned)
        self.border_title = "Editing your last message · enter resends · esc cancels"

    def _end_edit(self, text: str) -> None:
        self._before_edit = None
        self._load(text)

    def _load(self, text: str) -> None:
        if not self.is_editing:
            self.border_title = None
        self._put = text
        self.load_text(text)
        self.move_cursor(self.document.end)

    # Sending

    def action_send(self) -> None:
        """Send the text or run the command, unless it is empty, refused, or a reply is awaited.

        The prompt is emptied at once: what is typed next belongs to the next message.
        """
        text = self.whole_text.rstrip()
        if not text:
            return
        match slash.read(text, self._offered):
            case slash.Refuse(words):
                self.post_message(self.Refused(words))
            case slash.Run() as run:
                commanded = self.Commanded(run, self._long.mentions(self.text))
                self.discard()
                self.post_message(commanded)
            case slash.Say() if self._dialogue.phase.is_busy:
                self.post_message(self.Refused(f"{self._dialogue.why_busy} Your text stays in the prompt."))
            case slash.Say(message):
                self._dialogue.begin_message()
                found = self._long.mentions(self.text), self._attachments.results
                submitted = self.Submitted(message, *found, self.is_editing)
                self.discard()
                self.post_message(submitted)

    # Keys

    def action_newline(self) -> None:
        """Break the line at the cursor."""
        self._put_in("\n")

    def action_earlier(self) -> None:
        """Up; in the first row, the prompt sent before."""
        if self.cursor_at_first_line and self._sent and self._place != 0:
            self._show(len(self._sent) - 1 if self._place is None else self._place - 1)
        else:
            self.action_cursor_up()

    def action_later(self) -> None:
        """Down; in the last row, the prompt sent after, and at the end what was being written."""
        if self.cursor_at_last_line and self._place is not None:
            self._show(self._place + 1 if self._place + 1 < len(self._sent) else None)
        else:
            self.action_cursor_down()

    def action_cursor_left(self, select: bool = False) -> None:
        """Left; in an empty prompt, the version of the chat before."""
        if self.text:
            super().action_cursor_left(select)
        else:
            self.action_walk(-1)

    def action_cursor_right(self, select: bool = False) -> None:
        """Right; in an empty prompt, the version of the chat after."""
        if self.text:
            super().action_cursor_right(select)
        else:
            self.action_walk(1)

    def action_walk(self, step: int) -> None:
        """Ask for another version of the chat; -1: the one before."""
        self.post_message(self.WalkRequested(step))

    def action_edit_last(self) -> None:
        """Ask for the last message, to change it."""
        self.post_message(self.EditRequested())

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
        if self._complete_by(event.key):
            pass
        elif event.key in self._send_keys:
            self.action_send()
        elif event.key in self._newline_keys:
            self.action_newline()
        elif event.key == "escape" and self._before_edit is not None:
            self._end_edit(self._before_edit)
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        self._paste(event.text)

    def _paste(self, text: str) -> None:
        pasted = text.replace("\r\n", "\n").replace("\r", "\n")
        if min(self.selection) == (0, 0):
            pasted = slash.from_paste(pasted)
        self._put_in(self._long.collapse_pasted(pasted))

    @property
    def selected_text(self) -> str:
        """The selection with every long text in full: it is to be had elsewhere, where a token means nothing."""
        return self._long.whole(super().selected_text)

    def action_cut(self) -> None:
        """Cut the selection, else the line; what is to be had elsewhere is as when it is copied."""
        super().action_cut()
        if (whole := self._long.whole(self.app.clipboard)) != self.app.clipboard:
            self.app.copy_to_clipboard(whole)

    def action_paste(self) -> None:
        """Paste what was last copied here."""
        self._paste(self.app.clipboard)

    def validate_selection(self, selection: Selection) -> Selection:
        """Neither end within a token, which is passed as if it were one letter."""
        start, end = selection
        was = self.cursor_location
        return Selection(*(self._out_of_token(place, was) for place in (start, end)))

    def _out_of_token(self, place: Location, was: Location) -> Location:
        """The other side of the token that `place` is within, seen from where the cursor was; else the nearer."""
        before, behind = self._beside_token(place)
        if was in (before, behind):
            return before if was == behind else behind
        return min(before, behind, key=lambda side: abs(side[1] - place[1]))

    def _put_in(self, text: str) -> None:
        self.replace(text, *self.selection, maintain_selection_offset=False)

    def edit(self, edit: Edit) -> EditResult:
        """Edit the text; a token goes as a whole, and nothing is put into it: its text would go unseen."""
        # Where Textual deletes the last line, the end is in the row below it.
        begin, end = edit.top, min(edit.bottom, self.document.end)
        if begin == end:
            begin = end = self._beside_token(end)[1]
        else:
            begin, end = self._beside_token(begin)[0], self._beside_token(end)[1]
        return super().edit(Edit(edit.text, begin, end, edit.maintain_selection_offset))

    def _beside_token(self, place: Location) -> tuple[Location, Location]:
        """Before and behind the token that `place` is within; `place` itself where there is none."""
        row, column = place
        for begin, end in self._long.spans(self.document.get_line(row)):
            if begin < column < end:
                return (row, begin), (row, end)
        return place, place

    def _show(self, place: int | None) -> None:
        self._drafts[self._place] = self._collapsed
        self._place = place
        text = self._drafts.get(place, "" if place is None else self._sent[place])
        self.put(text)

    # Completion

    def _complete_by(self, key: str) -> bool:
        """Whether the list above has used a key."""
        if self._completions.offered is None:
            return False
        if self._looked_at != (self.text, self.cursor_location):
            self._completions.offer(None)
            self._look()
        offered, chosen = self._completions.offered, self._completions.chosen
        if offered is None:
            return False
        match key:
            case "up" | "down":
                self._completions.move(1 if key == "down" else -1)
            case "escape":
                self._completions.offer(None)
            case "enter" if chosen is not None and chosen.text != offered.typed:
                self.take(chosen)
            case "tab" if (wanted := chosen or self._completions.top) is not None:
                self.take(wanted)
            case _:
                return False
        return True

    def take(self, candidate: Candidate) -> None:
        """Put what was chosen in the list in place of what was typed."""
        offered = self._completions.offered
        if offered is None:
            return
        row, column = self.cursor_location
        begin = (row, column - len(offered.typed))
        self._completions.offer(None)
        self.replace(candidate.text + candidate.ends, begin, (row, column), maintain_selection_offset=False)

    @on(TextArea.Changed)
    def _changed(self) -> None:
        self._attachments.show_mentions(self._long.mentions(self.text))
        if self.text == self._put:
            self._completions.offer(None)
        else:
            self._put = ""
            self._look()

    @on(TextArea.SelectionChanged)
    def _cursor_moved(self) -> None:
        text, place = self._looked_at
        if self.text == text and self.cursor_location != place:
            self._completions.offer(None)

    def _look(self) -> None:
        """Offer what can be completed at the cursor, at the end of a word."""
        row, column = self.cursor_location
        self._looked_at = (self.text, self.cursor_location)
        line = self.document.get_line(row)
        is_at_end = not line[column : column + 1].strip()
        found = complete(line[:column], row == 0, self._offered) if is_at_end else None
        if isinstance(found, Place):
            self._look_for(found)
        else:
            self._completions.offer(found)

    @work(exclusive=True)
    async def _look_for(self, place: Place) -> None:
        looked_at = self._looked_at
        found: Completing | None = await asyncio.to_thread(list_files, place, Path())
        if self._looked_at == looked_at == (self.text, self.cursor_location):
            self._completions.offer(found)
