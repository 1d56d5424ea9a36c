"""What a front end has to show: the only connection from the chat's core to its screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from app.core.conversation import Conversation
from app.core.phase import Phase
from app.core.queued_messages import QueuedMessage
from app.store.records import FinalState, StoredMessage, TurnStats
from mlx_engine.protocol.events import Finished, Part, Round

Severity = Literal["information", "warning", "error"]


class Tell(Protocol):
    """Tells the person something outside the chat, such as in a notification."""

    def __call__(self, message: str, *, severity: Severity = ..., timeout: float | None = ...) -> None: ...


class ReplyView:
    """Shows nothing; a front end overrides what it shows.

    Called on the thread that calls the Dialogue. Methods are `async` where a screen has to be laid out.
    """

    def show_phase(self, phase: Phase, status: str, *, is_error: bool) -> None:
        """status: the phase in words, such as `reading prompt 256 of 800`."""

    async def show_message(self, message: StoredMessage, *, replaces_last: bool) -> None:
        """Show a message of the person, below all others or in place of the last turn."""

    async def begin_reply(self, text: str, thinking: str) -> None:
        """Begin a reply to the last message, in place of an earlier one. text, thinking: what it already has."""

    def grow_reply(self, part: Round | Part | Finished) -> None:
        """Show more of the running reply."""

    def end_reply(self, stats: TurnStats, state: FinalState, *, is_empty: bool) -> None:
        """End the running reply. is_empty: it has no text, so its figures mean little."""

    async def show_error(self, message: str) -> None:
        """Show why there is no reply, or why it ended early."""

    def give_back(self, text: str, mentions: Sequence[str]) -> None:
        """Give back a message that got no reply, to be sent again. mentions: its files, as typed."""

    def edit_again(self, message: StoredMessage) -> None:
        """Put a message that got no reply into the prompt, to be changed and sent again in its place."""

    def show_queue(self, queued: Sequence[QueuedMessage]) -> None:
        """Show the messages that wait for the running reply to end."""

    def send_queued(self, message: QueuedMessage) -> None:
        """Send a message whose turn has come, with its files."""

    def return_queue(self, queued: Sequence[QueuedMessage]) -> None:
        """Put messages that waited back into the prompt. They are not sent."""

    async def show_chat(self, conversation: Conversation) -> None:
        """Show another chat, another version of it, or a new chat without messages."""

    def show_cut_off(self, is_cut_off: bool) -> None:
        """Show as long as it lasts that the file of chats cannot be written."""

    def show_title(self, title: str) -> None:
        """title: empty before the first message."""
