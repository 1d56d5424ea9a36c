"""The conversation: the branch of a chat that is shown, kept in the store while it grows.

Knows nothing of the screen or the engine. What a person wrote is on the disk before anybody is asked for a
reply; a reply is at most `FLUSH_S` ahead of the disk. Methods that keep something may raise StoreError.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.sanitise import cleaned
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat, FinalState, StoredMessage, TurnStats
from mlx_engine.events import Message

FLUSH_S = 1.5
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


@dataclass(frozen=True, slots=True)
class Running:
    """The reply that grows, and what of it is not on the disk yet."""

    message: StoredMessage
    text: str = ""
    thinking: str = ""


class Conversation:
    """Exchanges in order; the last one may still be growing."""

    def __init__(
        self, store: ChatStore, system: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self.system = system
        """Stands ahead of every request; None: nothing does."""
        self._clock = clock
        self._running: Running | None = None
        self._flushed_at_s = 0.0
        self.chat: Chat | None = None
        """None until the first message: a chat that nobody wrote in is not kept."""
        self.exchanges: list[Exchange] = []
        self.model = ""
        """The pair that answers, noted with the chat."""
        self.drafter: str | None = None
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
        return bool(last and last.reply and last.text and last.reply.state != "complete")

    def ask(self, prompt: str) -> None:
        """Begin an exchange after the last one. On the disk when this returns."""
        if self.chat is None:
            self.chat = self._store.create_chat(model=self.model, drafter=self.drafter, params=self.params)
        last = self.last
        parent = None if last is None else (last.reply or last.prompt).id
        self._begin(prompt, parent, self.exchanges)

    def edit(self, prompt: str) -> None:
        """Ask something else in place of the last message; what was there stays beside it."""
        last = self.last
        assert last is not None
        self._begin(prompt, last.prompt.parent_id, self.exchanges[:-1])

    def regenerate(self) -> bool:
        """Ask for another reply to the last message. False: there is nothing to ask again."""
        if self.last is None:
            return False
        self.last.reply, self.last.text, self.last.thinking = None, "", ""
        self._begin_reply()
        return True

    def go_on(self) -> bool:
        """Let the last reply grow again. False: it is complete, or there is none."""
        last = self.last
        if not self.can_go_on or last is None or last.reply is None:
            return False
        last.reply = self._store.continue_reply(last.reply.id)
        self._run(last.reply)
        return True

    def append(self, text: str, thinking: str = "") -> None:
        """Let the running reply grow. What it has is kept, however it ends."""
        last, running = self.last, self._running
        if last is None or running is None:
            return
        text, thinking = cleaned(text), cleaned(thinking)
        last.text += text
        last.thinking += thinking
        self._running = Running(running.message, running.text + text, running.thinking + thinking)
        if self._clock() - self._flushed_at_s >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Bring the disk up to the running reply. What cannot be written now is written with the next."""
        running, self._flushed_at_s = self._running, self._clock()
        if running and (running.text or running.thinking):
            try:
                self._store.grow_reply(running.message.id, running.text, running.thinking)
            except StoreError:
                return
            self._running = Running(running.message)

    def end(self, state: FinalState, stats: TurnStats | None = None) -> None:
        """The running reply, if any, has ended. On the disk when this returns."""
        running, self._running = self._running, None
        if running is None:
            return
        reply = self._store.finish_reply(running.message.id, state, stats, running.text, running.thinking)
        if self.last:
            self.last.reply = reply

    def clear(self) -> None:
        """Begin a new conversation."""
        self.chat, self.exchanges, self.params = None, [], {}

    def open(self, chat_id: int) -> None:
        """Go on with a stored chat."""
        chat = self._store.chat(chat_id)
        self._show(chat)
        self.params = chat.params

    def walk(self, message_id: int, step: int) -> None:
        """Show the sibling of a message, and what stands under it."""
        assert self.chat is not None
        self._store.select_sibling(message_id, step)
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
        assert self.chat is not None
        message = self._store.append_user(self.chat.id, parent_id, prompt)
        self.exchanges = [*before, Exchange(message)]
        self.chat = self._store.chat(self.chat.id)
        self._begin_reply()

    def _begin_reply(self) -> None:
        last = self.last
        assert last is not None
        last.reply = self._store.begin_reply(last.prompt.id)
        self._run(last.reply)

    def _run(self, reply: StoredMessage) -> None:
        self._running = Running(reply)
        self._flushed_at_s = self._clock()

    def _show(self, chat: Chat) -> None:
        exchanges: list[Exchange] = []
        for message in self._store.path(chat.id):
            if message.role == "user":
                exchanges.append(Exchange(message))
            elif exchanges:
                exchanges[-1].reply = message
                exchanges[-1].text, exchanges[-1].thinking = message.text, message.thinking
        self.chat, self.exchanges = chat, exchanges
