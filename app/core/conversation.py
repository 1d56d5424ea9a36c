"""The conversation: the branch of a chat that is shown, kept in the store while it grows.

Knows nothing of the screen or the engine. What a person wrote is on the disk before anybody is asked for a
reply; a reply is at most `KEEP_S` ahead of the disk. Methods that keep something may raise StoreError, with the
conversation as it was before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.store.chat_store import ChatStore
from app.store.errors import StoreBusyError, StoreError
from app.store.records import Chat, FinalState, StoredMessage, TurnStats
from app.text.sanitise import cleaned
from mlx_engine.protocol.events import Message

KEEP_S = 1.5
"""What a crash may cost of a running reply; two seconds are promised."""


@dataclass(slots=True)
class Exchange:
    """One message of the person and the reply to it so far."""

    prompt: StoredMessage
    reply: StoredMessage | None = None
    text: str = ""
    """The reply as it stands, ahead of the disk while it grows."""
    thinking: str = ""
    """What the model thought before it answered; never sent again."""


@dataclass(slots=True)
class Running:
    """The reply that grows, and what of it is not on the disk yet."""

    exchange: Exchange
    message: StoredMessage
    text: str = ""
    thinking: str = ""
    ended: tuple[FinalState, TurnStats | None] | None = None
    """How it has ended; None: it grows."""


class Conversation:
    """Exchanges in order; the last one may still be growing."""

    def __init__(self, store: ChatStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self.system: str | None = None
        """The system prompt of every request."""
        self._clock = clock
        self._running: Running | None = None
        self._flushed_at_s = 0.0
        self.chat: Chat | None = None
        """None until the first message: a chat that nobody wrote in is not kept."""
        self.exchanges: list[Exchange] = []
        self.params: dict[str, Any] = {}
        """The settings that this chat has of its own, kept with it."""

    @property
    def last(self) -> Exchange | None:
        """The newest exchange, None at the start."""
        return self.exchanges[-1] if self.exchanges else None

    @property
    def last_answer(self) -> str | None:
        """The newest reply that says something, complete or stopped; None before the first."""
        return next((each.text for each in reversed(self.exchanges) if each.text), None)

    @property
    def can_go_on(self) -> bool:
        """Whether the last reply has ended before it was complete."""
        last = self.last
        return bool(last and last.reply and last.reply.state != "complete")

    def ask(self, prompt: str) -> None:
        """Begin an exchange after the last one. On the disk when this returns."""
        last = self.last
        parent = None if last is None else (last.reply or last.prompt).id
        self._begin(prompt, parent, self.exchanges)

    def edit(self, prompt: str) -> None:
        """Ask something else in place of the last message, if there is one; what was there stays beside it."""
        parent = self.last.prompt.parent_id if self.last else None
        self._begin(prompt, parent, self.exchanges[:-1])

    def regenerate(self) -> bool:
        """Ask for another reply to the last message. False: there is nothing to ask again."""
        last = self.last
        if last is None:
            return False
        self._keep_end()
        reply = self._store.begin_reply(last.prompt.id)
        last.text = last.thinking = ""
        self._run(last, reply)
        return True

    def go_on(self) -> bool:
        """Let the last reply grow again. False: it is complete, or there is none."""
        last = self.last
        if not self.can_go_on or last is None or last.reply is None:
            return False
        self._keep_end()
        self._run(last, self._store.continue_reply(last.reply.id))
        if last.thinking and not last.text:
            self.append("", "\n\n")  # thoughts are never sent again: they begin anew
        return True

    def append(self, text: str, thinking: str = "") -> None:
        """Let the running reply grow. What it has is kept, however it ends."""
        running = self._running
        if running is None or running.ended:
            return
        text, thinking = cleaned(text), cleaned(thinking)
        running.exchange.text += text
        running.exchange.thinking += thinking
        running.text += text
        running.thinking += thinking
        if self._clock() - self._flushed_at_s >= KEEP_S:
            with suppress(StoreError):
                self.flush()

    def flush(self) -> None:
        """Bring the disk up to the running reply, if that can be had at once."""
        running = self._running
        if running is None or running.ended or not (running.text or running.thinking):
            return
        try:
            self._store.grow_reply(running.message.id, running.text, running.thinking)
            running.text = running.thinking = ""
        finally:
            self._flushed_at_s = self._clock()

    def end(self, state: FinalState, stats: TurnStats | None = None) -> None:
        """The running reply, if any, has ended. On the disk when this returns.

        What cannot be written now is written before the next reply begins, or with the next call of this.
        """
        if self._running and not self._running.ended:
            self._running.ended = state, stats
        self._keep_end()

    def clear(self) -> None:
        """Begin a new conversation."""
        self.chat, self.exchanges, self.params = None, [], {}

    def open(self, chat_id: int, words: str = "") -> None:
        """Go on with a stored chat. words: what it was found by, to be seen in it."""
        self._keep_end()
        self._store.reveal(chat_id, words)
        chat = self._store.chat(chat_id)
        self._show(chat)
        self.params = chat.params

    @property
    def version(self) -> tuple[int, int]:
        """Which version of the chat is shown, from 1, and how many there are. May raise StoreError."""
        return self._store.version(self.chat.id) if self.chat else (1, 1)

    def walk(self, step: int) -> None:
        """Show the version of the chat `step` places further, at the most the last one."""
        if self.chat is not None:
            self._keep_end()
            self._store.walk(self.chat.id, step)
            self._show(self.chat)

    def keep_params(self, params: Mapping[str, Any]) -> None:
        """Have the chat's own settings, kept from its first message on."""
        has_changed, self.params = params != self.params, dict(params)
        if has_changed and self.chat is not None:
            self.chat = self._store.set_params(self.chat.id, self.params)

    def rename(self, title: str) -> None:
        """Give the chat a title."""
        if self.chat is not None:
            self.chat = self._store.rename(self.chat.id, title)

    def to_send(self) -> tuple[Message, ...]:
        """The messages of the next request, ending in the newest prompt, or in the reply that is to go on.

        Earlier prompts that never got a word in reply (failed, or stopped at once) are left out: what the
        person sent after them stands in their place.
        """
        messages = [Message("system", self.system)] if self.system else []
        for each in self.exchanges[:-1]:
            if each.text:
                messages += [Message("user", each.prompt.text), Message("assistant", each.text)]
        last = self.exchanges[-1]
        messages.append(Message("user", last.prompt.text))
        if last.text:
            messages.append(Message("assistant", last.text))
        return tuple(messages)

    def _begin(self, prompt: str, parent_id: int | None, before: list[Exchange]) -> None:
        self._keep_end()
        if self.chat is None:
            self.chat = self._store.create_chat(params=self.params)
        self.chat, message, reply = self._store.ask(self.chat.id, parent_id, prompt)
        exchange = Exchange(message)
        self.exchanges = [*before, exchange]
        self._run(exchange, reply)

    def _run(self, exchange: Exchange, reply: StoredMessage) -> None:
        exchange.reply = reply
        self._running = Running(exchange, reply)
        self._flushed_at_s = self._clock()

    def _keep_end(self) -> None:
        """Write how the running reply has ended, if it has."""
        running = self._running
        if running is None or running.ended is None:
            return
        self._running = None
        try:
            running.exchange.reply = self._store.finish_reply(
                running.message.id, *running.ended, running.text, running.thinking
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
