"""The conversation: the version of a chat that is shown, stored while it grows.

Knows neither screen nor engine. A message is on the disk before its reply is requested, and a growing reply is at
most `SAVE_INTERVAL_S` ahead of the disk. Methods that store something may raise StoreError; the conversation then
stays as it was before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.store.chat_store import ChatStore
from app.store.errors import StoreBusyError, StoreError
from app.store.records import Chat, FinalState, Role, StoredMessage, TurnStats
from app.text.sanitise import cleaned
from mlx_engine.protocol.events import Message

SAVE_INTERVAL_S = 1.5
"""What a crash may cost of a running reply; the README promises two seconds."""


@dataclass(slots=True)
class Exchange:
    """A message of the person, and the reply to it so far."""

    prompt: StoredMessage
    reply: StoredMessage | None = None
    text: str = ""
    """Of the reply; ahead of the disk while it grows."""
    thinking: str = ""
    """Of the reply. Not part of later requests."""


@dataclass(slots=True)
class RunningReply:
    """The reply that grows, or has ended and is not stored yet."""

    exchange: Exchange
    message: StoredMessage
    unsaved_text: str = ""
    unsaved_thinking: str = ""
    end: tuple[FinalState, TurnStats | None] | None = None
    """How it ended; None: it grows."""


class Conversation:
    """Exchanges in order. The reply of the last one may be growing."""

    def __init__(self, store: ChatStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._running: RunningReply | None = None
        self._saved_at_s = 0.0
        self.chat: Chat | None = None
        """None until the first message: an empty chat is not stored."""
        self.exchanges: list[Exchange] = []
        self.system: str | None = None
        """The system prompt of every request."""
        self.params: dict[str, Any] = {}
        """The chat's own settings, stored with it."""

    @property
    def last(self) -> Exchange | None:
        return self.exchanges[-1] if self.exchanges else None

    @property
    def last_answer(self) -> str | None:
        """The newest reply that has a text, complete or stopped; None before the first."""
        return next((exchange.text for exchange in reversed(self.exchanges) if exchange.text), None)

    @property
    def can_go_on(self) -> bool:
        """Whether the last reply ended before it was complete."""
        last = self.last
        return bool(last and last.reply and last.reply.state != "complete")

    def ask(self, prompt: str, typed_characters: int | None = None) -> None:
        """Add a message. It is on the disk when this returns.

        typed_characters: how much of it the person typed; None: all of it.
        """
        last = self.last
        parent = None if last is None else (last.reply or last.prompt).id
        self._begin(prompt, typed_characters, parent, self.exchanges)

    def edit(self, prompt: str, typed_characters: int | None = None) -> None:
        """Replace the last message, if there is one; the old one stays in another version. See `ask`."""
        parent = self.last.prompt.parent_id if self.last else None
        self._begin(prompt, typed_characters, parent, self.exchanges[:-1])

    def regenerate(self) -> bool:
        """Begin another reply to the last message. False if there is no message."""
        last = self.last
        if last is None:
            return False
        self._store_end()
        reply = self._store.begin_reply(last.prompt.id)
        last.text = last.thinking = ""
        self._run(last, reply)
        return True

    def go_on(self) -> bool:
        """Let the last reply grow again. False if it is complete, or there is none."""
        last = self.last
        if not self.can_go_on or last is None or last.reply is None:
            return False
        self._store_end()
        self._run(last, self._store.continue_reply(last.reply.id))
        if last.thinking and not last.text:
            self.append("", "\n\n")  # the model does not see its earlier thoughts, so new ones follow them
        return True

    def append(self, text: str, thinking: str = "") -> None:
        """Let the running reply grow."""
        running = self._running
        if running is None or running.end:
            return
        text, thinking = cleaned(text), cleaned(thinking)
        running.exchange.text += text
        running.exchange.thinking += thinking
        running.unsaved_text += text
        running.unsaved_thinking += thinking
        if self._clock() - self._saved_at_s >= SAVE_INTERVAL_S:
            with suppress(StoreError):
                self.flush()

    def flush(self) -> None:
        """Store what the running reply has so far. Raises StoreError, also if the store is busy."""
        running = self._running
        if running is None or running.end or not (running.unsaved_text or running.unsaved_thinking):
            return
        try:
            self._store.grow_reply(running.message.id, running.unsaved_text, running.unsaved_thinking)
            running.unsaved_text = running.unsaved_thinking = ""
        finally:
            self._saved_at_s = self._clock()

    def end(self, state: FinalState, stats: TurnStats | None = None) -> None:
        """End the running reply, if there is one. It is on the disk when this returns.

        If the store is busy, it is stored before the next reply begins, or by the next call of this.
        """
        if self._running and not self._running.end:
            self._running.end = state, stats
        self._store_end()

    def clear(self) -> None:
        self.chat, self.exchanges, self.params = None, [], {}

    def open(self, chat_id: int, words: str = "") -> None:
        """Open a stored chat. words: what it was searched by; a version with them is shown."""
        self._store_end()
        self._store.reveal(chat_id, words)
        chat = self._store.chat(chat_id)
        self._show(chat)
        self.params = chat.params

    @property
    def version(self) -> tuple[int, int]:
        """The number of the version that is shown, from 1, and the number of versions. May raise StoreError."""
        return self._store.version(self.chat.id) if self.chat else (1, 1)

    @property
    def last_branch(self) -> tuple[int, Role] | None:
        """The last message shown that has siblings: how many exchanges before the last it is, and whose.

        If there are several versions, there is one.
        """
        for before_last, exchange in enumerate(reversed(self.exchanges)):
            if exchange.reply and exchange.reply.siblings > 1:
                return before_last, "assistant"
            if exchange.prompt.siblings > 1:
                return before_last, "user"
        return None

    def walk(self, step: int) -> None:
        """Show the version `step` positions further on, or the last one."""
        if self.chat is not None:
            self._store_end()
            self._store.walk(self.chat.id, step)
            self._show(self.chat)

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Change the chat's own settings, and store them if it has messages."""
        has_changed, self.params = params != self.params, dict(params)
        if has_changed and self.chat is not None:
            self.chat = self._store.set_params(self.chat.id, self.params)

    def rename(self, title: str) -> None:
        if self.chat is not None:
            self.chat = self._store.rename(self.chat.id, title)

    def to_send(self) -> tuple[Message, ...]:
        """The messages of the next request. The last one is the newest message, or the reply to continue.

        Earlier messages without a reply, which failed or were stopped at once, are left out.
        """
        messages = [Message("system", self.system)] if self.system else []
        for exchange in self.exchanges[:-1]:
            if exchange.text:
                messages += [Message("user", exchange.prompt.text), Message("assistant", exchange.text)]
        last = self.exchanges[-1]
        messages.append(Message("user", last.prompt.text))
        if last.text:
            messages.append(Message("assistant", last.text))
        return tuple(messages)

    def _begin(
        self, prompt: str, typed_characters: int | None, parent_id: int | None, earlier: list[Exchange]
    ) -> None:
        self._store_end()
        if self.chat is None:
            self.chat = self._store.create_chat(params=self.params)
        self.chat, message, reply = self._store.ask(self.chat.id, parent_id, prompt, typed_characters)
        exchange = Exchange(message)
        self.exchanges = [*earlier, exchange]
        self._run(exchange, reply)

    def _run(self, exchange: Exchange, reply: StoredMessage) -> None:
        exchange.reply = reply
        self._running = RunningReply(exchange, reply)
        self._saved_at_s = self._clock()

    def _store_end(self) -> None:
        """Store the running reply if it has ended."""
        running = self._running
        if running is None or running.end is None:
            return
        self._running = None
        try:
            running.exchange.reply = self._store.finish_reply(
                running.message.id, *running.end, running.unsaved_text, running.unsaved_thinking
            )
        except StoreBusyError:
            self._running = running
            raise

    def _show(self, chat: Chat) -> None:
        exchanges: list[Exchange] = []
        for message in self._store.path(chat.id):
            if message.role == "user":
                exchanges.append(Exchange(message))
            elif exchanges:
                exchanges[-1].reply = message
                exchanges[-1].text, exchanges[-1].thinking = message.text, message.thinking
        self.chat, self.exchanges = chat, exchanges
