"""What a front end shows of the dialogue: the one seam between the chat and its screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from app.core.conversation import Conversation
from app.core.phase import Phase
from app.store.records import FinalState, TurnStats
from mlx_engine.protocol.events import Finished, Round

Severity = Literal["information", "warning", "error"]


class Tell(Protocol):
    """Tells the person something in passing."""

    def __call__(self, message: str, *, severity: Severity = ..., timeout: float | None = ...) -> None: ...


class ReplyView(Protocol):
    """Called on the thread that calls the Dialogue. `async` where a screen has to be laid out."""

    def show_phase(self, phase: Phase, words: str, *, is_trouble: bool) -> None:
        """The phase, in words that may be more exact than its own, such as `reading prompt 256 of 800`."""
        ...

    async def show_message(self, text: str, *, replaces_last: bool) -> None:
        """A message of the person, below all others or in place of the last turn."""
        ...

    async def begin_reply(self, text: str, thinking: str) -> None:
        """A reply to the last message begins, in place of an earlier one. text, thinking: what it already has."""
        ...

    def grow_reply(self, part: Round | Finished) -> None:
        """More of the running reply."""
        ...

    def end_reply(self, stats: TurnStats, state: FinalState, *, is_empty: bool) -> None:
        """The running reply has ended. is_empty: it got no word, so its figures mean little."""
        ...

    async def show_error(self, message: str) -> None:
        """Why there is no reply, or no more of it."""
        ...

    def give_back(self, text: str, mentions: Sequence[str]) -> None:
        """A message that got no word in reply, for the person to send again. mentions: of files, as typed."""
        ...

    async def show_chat(self, conversation: Conversation) -> None:
        """Another chat, another version of it, or a new one without messages."""
        ...

    def show_title(self, title: str) -> None:
        """The title of the chat; empty before its first message."""
        ...


class SilentView:
    """Shows nothing; the base of front ends that need only some of it."""

    def show_phase(self, phase: Phase, words: str, *, is_trouble: bool) -> None:
        """See ReplyView."""

    async def show_message(self, text: str, *, replaces_last: bool) -> None:
        """See ReplyView."""

    async def begin_reply(self, text: str, thinking: str) -> None:
        """See ReplyView."""

    def grow_reply(self, part: Round | Finished) -> None:
        """See ReplyView."""

    def end_reply(self, stats: TurnStats, state: FinalState, *, is_empty: bool) -> None:
        """See ReplyView."""

    async def show_error(self, message: str) -> None:
        """See ReplyView."""

    def give_back(self, text: str, mentions: Sequence[str]) -> None:
        """See ReplyView."""

    async def show_chat(self, conversation: Conversation) -> None:
        """See ReplyView."""

    def show_title(self, title: str) -> None:
        """See ReplyView."""
