"""The prompt with its completions and its files: puts whole messages together."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from textual import on, work
from textual.app import ComposeResult, SuspendNotSupported
from textual.containers import Vertical
from textual.message import Message

from app.core import slash
from app.core.attachments import Attachment, AttachmentError
from app.core.dialogue import Dialogue
from app.core.message_files import compose_message, split_message
from app.core.prompt_history import PromptHistory
from app.store.records import StoredMessage
from app.system.editor import EditorError, edit, editor_command, undisturbed
from app.tui.prompt.attachment_line import AttachmentLine
from app.tui.prompt.completion_list import CompletionList
from app.tui.prompt.prompt import Prompt

READING = "reading"
"""The group of the worker that reads the files of a message; only one message is read at a time."""


class Composer(Vertical):
    """Posts each message when its files have been read."""

    @dataclass
    class MessageReady(Message):
        """A message to send, with its files. Call `take` first, and `give_back` if it cannot be sent."""

        text: str
        typed_characters: int
        """How much of the text the person typed; the files follow."""
        submitted: Prompt.Submitted

    @dataclass
    class AttachmentFailed(Message):
        """A message was not sent because of a file; it is in the prompt again."""

        reason: str

    @dataclass
    class CountRequested(Message):
        """The tokens of a text should be counted. Answer with `counted`."""

        id: int
        text: str

    _dialogue: Dialogue

    def __init__(self, history: PromptHistory, names_for: slash.NamesFor) -> None:
        super().__init__(id="composer")
        self._completions = CompletionList()
        self._files = AttachmentLine()
        self.prompt = Prompt(history, self._completions, self._files, names_for)
        self._last_id = 0
        self._counting: dict[int, Attachment] = {}
        """The files whose tokens are being counted, by request."""
        self._being_read: Prompt.Submitted | None = None
        """The message whose files are being read, until it is taken."""
        self._failed_text: str | None = None
        """The message that failed because of a file; if it is sent again, that file is left out."""

    def follow(self, dialogue: Dialogue) -> None:
        """Ask this dialogue whether a message can be sent. Called once, before mounting."""
        self._dialogue = dialogue
        self.prompt.follow(dialogue)

    def compose(self) -> ComposeResult:
        yield self._completions
        yield self._files
        yield self.prompt

    @on(Prompt.Submitted)
    def submit(self, submitted: Prompt.Submitted) -> None:
        """Read the files of a message, then post it."""
        self._dialogue.begin_message()
        self._being_read = submitted
        self._read_files(submitted)

    def take(self, submitted: Prompt.Submitted) -> bool:
        """Take over a message that is ready. False if it was called back meanwhile."""
        is_valid = self._being_read is submitted
        if is_valid:
            self._being_read = None
        return is_valid

    def call_back(self, *, leaves_chat: bool = False) -> bool:
        """Put the message whose files are being read back into the prompt. False if there is none.

        leaves_chat: an edited message becomes a new one, since the message it would replace is gone.
        """
        if (submitted := self._being_read) is None:
            return False
        self._being_read = None
        self.workers.cancel_group(self, READING)
        submitted.is_edit = submitted.is_edit and not leaves_chat
        self.give_back(submitted)
        if self.prompt.whole_text.rstrip() != submitted.text:
            self.app.notify("The message was not sent. Press up to get it back.")
        return True

    def give_back(self, submitted: Prompt.Submitted) -> None:
        """Put a message that was not sent back into the prompt, if that is empty."""
        if submitted.is_edit:
            files = [file for file in submitted.known_files.values() if isinstance(file, Attachment)]
            self.prompt.begin_edit(submitted.text, submitted.mentions, files)
        else:
            self.prompt.offer(submitted.text, submitted.mentions)
        self._dialogue.take_back_message()

    def edit(self, message: StoredMessage) -> None:
        """Put a message that was sent into the prompt, with its files, to edit it."""
        text, files = split_message(message.text, message.typed_characters)
        self.prompt.begin_edit(text, [file.mention for file in files], files)

    @work(exclusive=True)
    async def write_in_editor(self) -> None:
        """Open the prompt in the person's own editor. A running reply continues meanwhile, and is stored."""
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

    def recount(self, context_tokens: int | None) -> None:
        """Count the tokens again, for another model. context_tokens: its context."""
        self._files.recount(context_tokens)

    def counted(self, id: int, tokens: int) -> None:
        """The answer to CountRequested."""
        self._files.set_token_count(self._counting.pop(id), tokens)

    @work(exclusive=True, group=READING)
    async def _read_files(self, submitted: Prompt.Submitted) -> None:
        """In a worker, since a slow disk must not block the keyboard."""
        is_insisting, self._failed_text = self._failed_text == submitted.text, None
        try:
            files = await self._files.collect(submitted.mentions, submitted.known_files, is_insisting=is_insisting)
        except AttachmentError as error:
            self._failed_text = submitted.text
            self._being_read = None
            self.give_back(submitted)
            self.post_message(self.AttachmentFailed(f"{error} Press enter again to send the message without it."))
            return
        message = compose_message(submitted.text, files)
        self.post_message(self.MessageReady(message, len(submitted.text), submitted))

    @on(CompletionList.Clicked)
    def _choose(self, event: CompletionList.Clicked) -> None:
        self.prompt.choose(event.candidate)

    @on(AttachmentLine.TokenCountRequested)
    def _count(self, event: AttachmentLine.TokenCountRequested) -> None:
        self._last_id += 1
        self._counting[self._last_id] = event.attachment
        self.post_message(self.CountRequested(self._last_id, event.attachment.text))
