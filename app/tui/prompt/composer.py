"""Where a message is made: the prompt, what completes it above, and the files that go with it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from textual import on, work
from textual.app import ComposeResult, SuspendNotSupported
from textual.containers import Vertical
from textual.message import Message

from app.core import attachments, slash
from app.core.attachments import Attachment, AttachmentError
from app.core.dialogue import Dialogue
from app.core.prompt_history import PromptHistory
from app.system.editor import EditorError, edit, editor_command, undisturbed
from app.tui.prompt.attachment_line import AttachmentLine
from app.tui.prompt.completion_list import CompletionList
from app.tui.prompt.prompt import Prompt

READING = "reading"
"""The worker that reads the files of a message; only one message is on its way at a time."""


class Composer(Vertical):
    """Hands on whole messages, their files in them."""

    @dataclass
    class Submitted(Message):
        """A message to send, unless `take` says no; whoever cannot gives back what was typed."""

        text: str
        typed: Prompt.Submitted

    @dataclass
    class Refused(Message):
        """What was typed cannot be sent; it is still there."""

        words: str

    @dataclass
    class CountWanted(Message):
        """The tokens of a text are asked for; `counted` takes them."""

        id: int
        text: str

    _dialogue: Dialogue

    def __init__(self, history: PromptHistory, offered: slash.Offered) -> None:
        """offered: what only the running chat knows about the values of commands."""
        super().__init__(id="composer")
        self._completions = CompletionList()
        self._files = AttachmentLine()
        self.prompt = Prompt(history, self._completions, self._files, offered)
        self._last_id = 0
        self._counting: dict[int, Attachment] = {}
        self._on_its_way: Prompt.Submitted | None = None
        """A message that nobody has taken yet: its files are being read."""
        self._refused: str | None = None
        """What could not be sent with its files; sent once more, it goes without those."""

    def follow(self, dialogue: Dialogue) -> None:
        """Ask this dialogue whether a message can be sent; called once, before anything is mounted."""
        self._dialogue = dialogue
        self.prompt.follow(dialogue)

    def compose(self) -> ComposeResult:
        """The prompt last."""
        yield self._completions
        yield self._files
        yield self.prompt

    @on(Prompt.Submitted)
    def submit(self, typed: Prompt.Submitted) -> None:
        """Send a message that was typed, or as if it had been."""
        self._dialogue.begin_message()
        self._on_its_way = typed
        self._read_files(typed)

    def take(self, typed: Prompt.Submitted) -> bool:
        """Take a message over; False: it was called back meanwhile."""
        is_there = self._on_its_way is typed
        if is_there:
            self._on_its_way = None
        return is_there

    def call_back(self, *, leaves_chat: bool = False) -> bool:
        """Have the message that is on its way in the prompt again; False: there is none.

        leaves_chat: there is no last message any more whose place it could take.
        """
        if (typed := self._on_its_way) is None:
            return False
        self._on_its_way = None
        self.workers.cancel_group(self, READING)
        typed.is_edit = typed.is_edit and not leaves_chat
        self.give_back(typed)
        if self.prompt.whole_text.rstrip() != typed.text:
            self.app.notify("The message was not sent. Press up to get it back.")
        return True

    def give_back(self, typed: Prompt.Submitted) -> None:
        """A message could not be sent: have it in the prompt again, if that is empty."""
        self._dialogue.take_back_message()
        if typed.is_edit:
            files = [each for each in typed.shown.values() if isinstance(each, Attachment)]
            self.prompt.begin_edit(typed.text, typed.mentions, files)
        else:
            self.prompt.offer(typed.text, typed.mentions)

    def edit(self, text: str) -> None:
        """Have a message that was sent in the prompt, to send it changed, with the files that it had."""
        typed, files = attachments.split_message(text)
        self.prompt.begin_edit(typed, [each.mention for each in files], files)

    @work(exclusive=True)
    async def write_in_editor(self) -> None:
        """The prompt in the person's own editor. Meanwhile a reply goes on, and is kept."""
        try:
            command = editor_command(os.environ)
            before = self.prompt.whole_text
            with undisturbed(), self.app.batch_update(), self.app.suspend():
                text = await asyncio.to_thread(edit, before, command)
        except (EditorError, SuspendNotSupported) as error:
            self.app.notify(str(error), severity="error")
            return
        if text == before:
            self.app.notify("The editor made no changes.")
        else:
            self.prompt.rewrite(text)

    def recount(self, context_tokens: int) -> None:
        """Another model counts otherwise, and has another context."""
        self._files.recount(context_tokens)

    def counted(self, id: int, tokens: int) -> None:
        """So many tokens has what was asked for."""
        self._files.set_token_count(self._counting.pop(id), tokens)

    @work(exclusive=True, group=READING)
    async def _read_files(self, typed: Prompt.Submitted) -> None:
        """A disk may be slow: meanwhile keys are heard."""
        is_insisting, self._refused = self._refused == typed.text, None
        try:
            files = await self._files.collect(typed.mentions, typed.shown, is_insisting=is_insisting)
        except AttachmentError as error:
            self._refused = typed.text
            self._on_its_way = None
            self.give_back(typed)
            self.post_message(self.Refused(f"{error} Press enter again to send the message without it."))
            return
        self.post_message(self.Submitted(attachments.compose_message(typed.text, files), typed))

    @on(Prompt.Refused)
    def _refuse(self, event: Prompt.Refused) -> None:
        self.post_message(self.Refused(event.words))

    @on(CompletionList.Clicked)
    def _choose(self, event: CompletionList.Clicked) -> None:
        self.prompt.take(event.candidate)

    @on(AttachmentLine.TokenCountRequested)
    def _count(self, event: AttachmentLine.TokenCountRequested) -> None:
        self._last_id += 1
        self._counting[self._last_id] = event.attachment
        self.post_message(self.CountWanted(self._last_id, event.attachment.text))
