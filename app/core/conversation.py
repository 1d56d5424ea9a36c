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
from typing import Any, TypeVar

from app.store.chat_store import ChatStore
from app.store.errors import StoreBusyError, StoreError, StoreReplacedError, TakenOverError
from app.store.records import Chat, FinalState, NewChat, NewMessage, Role, StoredMessage, TurnStats
from app.text.sanitise import cleaned
from mlx_engine.protocol.events import Message

T = TypeVar("T")

SAVE_INTERVAL_S = 1.5
"""What a crash may cost of a running reply; the README promises two seconds."""
BEAT_INTERVAL_S = 10.0
"""How often a reply without new words shows other processes that it is still running."""
REPLACED = "The file of chats is another one than before. This chat was added to it."
TAKEN_OVER = "Another window has gone on with this reply. What is written here is kept as another version of it."
DELETED = "This chat was deleted in another window. /undo brings it back, with this reply."


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
        self._epoch = store.epoch
        """The file that all ids here are from."""
        self._news: list[str] = []
        self._is_deletion_known = False
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

        def parent() -> int | None:
            return (self.last.reply or self.last.prompt).id if self.last else None

        self._begin(prompt, typed_characters, parent, self.exchanges)

    def edit(self, prompt: str, typed_characters: int | None = None) -> None:
        """Replace the last message, if there is one; the old one stays in another version. See `ask`."""

        def parent() -> int | None:
            return self.last.prompt.parent_id if self.last else None

        self._begin(prompt, typed_characters, parent, self.exchanges[:-1])

    def regenerate(self) -> bool:
        """Begin another reply to the last message. False if there is no message."""
        last = self.last
        if last is None:
            return False
        self._store_end()
        reply = self._keep(lambda: self._store.begin_reply(last.prompt.id))
        last.text = last.thinking = ""
        self._run(last, reply)
        return True

    def go_on(self) -> bool:
        """Let the last reply grow again. False if it is complete, or there is none."""
        last = self.last
        if not self.can_go_on or last is None or last.reply is None:
            return False
        self._store_end()

        def go_on() -> StoredMessage:
            assert last.reply is not None
            return self._store.continue_reply(last.reply.id)

        reply = self._keep(go_on)
        last.text, last.thinking = reply.text, reply.thinking  # another window may have written more
        self._run(last, reply)
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
        if running is None or running.end:
            return
        if not (running.unsaved_text or running.unsaved_thinking):
            self.beat()
            return

        def grow() -> None:
            self._store.grow_reply(running.message.id, running.unsaved_text, running.unsaved_thinking)
            running.unsaved_text = running.unsaved_thinking = ""

        try:
            self._keep(grow)
            self._notice_deletion()
        finally:
            self._saved_at_s = self._clock()

    def beat(self) -> None:
        """Show other processes now and then that the reply is still running."""
        if self._running and not self._running.end and self._clock() - self._saved_at_s >= BEAT_INTERVAL_S:
            self._saved_at_s = self._clock()
            self._store.beat()

    def take_news(self) -> list[str]:
        """What has happened to this chat that the person should be told, once."""
        news, self._news = self._news, []
        return news

    def know_deletion(self) -> None:
        """This chat was deleted here, so it is no news."""
        self._is_deletion_known = True

    def end(self, state: FinalState, stats: TurnStats | None = None) -> None:
        """End the running reply, if there is one. It is on the disk when this returns.

        If the store is busy, it is stored before the next reply begins, or by the next call of this.
        """
        if self._running and not self._running.end:
            self._running.end = state, stats
        self._store_end()

    def clear(self) -> None:
        self.chat, self.exchanges, self.params = None, [], {}
        self._is_deletion_known = False

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
            self._keep(lambda: self._store.walk(self._chat_id, step))
            self._show(self.chat)

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Change the chat's own settings, and store them if it has messages."""
        has_changed, self.params = params != self.params, dict(params)
        if has_changed and self.chat is not None:
            self.chat = self._keep(lambda: self._store.set_params(self._chat_id, self.params))

    def rename(self, title: str) -> None:
        if self.chat is not None:
            self.chat = self._keep(lambda: self._store.rename(self._chat_id, title))

    @property
    def stored_id(self) -> int | None:
        """Of the chat, if what is said is saved to a file."""
        return self.chat.id if self.chat and self._store.is_saving else None

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
        self,
        prompt: str,
        typed_characters: int | None,
        parent_id: Callable[[], int | None],
        earlier: list[Exchange],
    ) -> None:
        self._store_end()
        if self.chat is None:
            self._epoch = self._store.epoch
            self.chat = self._store.create_chat(params=self.params)
        self.chat, message, reply = self._keep(
            lambda: self._store.ask(self._chat_id, parent_id(), prompt, typed_characters)
        )
        self._is_deletion_known = False
        exchange = Exchange(message)
        self.exchanges = [*earlier, exchange]
        self._run(exchange, reply)

    @property
    def _chat_id(self) -> int:
        assert self.chat is not None
        return self.chat.id

    def _run(self, exchange: Exchange, reply: StoredMessage) -> None:
        exchange.reply = reply
        self._running = RunningReply(exchange, reply)
        self._saved_at_s = self._clock()

    def _store_end(self) -> None:
        """Store the running reply if it has ended."""
        running = self._running
        if running is None or running.end is None:
            return
        state, stats = running.end

        def finish() -> StoredMessage:
            texts = running.unsaved_text, running.unsaved_thinking
            return self._store.finish_reply(running.message.id, state, stats, *texts)

        try:
            running.exchange.reply = self._keep(finish)
        except StoreBusyError:
            raise
        except StoreError:
            self._running = None
            raise
        self._running = None
        self._notice_deletion()

    def _keep(self, write: Callable[[], T]) -> T:
        """Run `write`; if this chat or its reply is no longer where it was, after it has found another place."""
        self._follow_file()
        try:
            return write()
        except StoreReplacedError:
            self._follow_file()
        except TakenOverError:
            self._branch_off()
        return write()

    def _follow_file(self) -> None:
        """Add this chat to the file that has replaced the one it was in."""
        if self._epoch == self._store.epoch:
            return
        if self.chat is not None:
            running, params = self._running, self.params
            times = self.chat.created_s, self.chat.updated_s
            chat = NewChat(
                self.chat.title, self.chat.model, self.chat.drafter, params, *times, self._as_messages()
            )
            self.chat = self._store.import_chats([chat])[0]
            stored = iter(self._store.path(self.chat.id))
            for exchange in self.exchanges:
                exchange.prompt = next(stored)
                exchange.reply = next(stored) if exchange.reply else None
            if running is not None and running.exchange.reply is not None:
                running.message = self._store.continue_reply(running.exchange.reply.id)
                running.unsaved_text = running.unsaved_thinking = ""
            self._news.append(REPLACED)
        self._epoch = self._store.epoch

    def _as_messages(self) -> tuple[NewMessage, ...]:
        messages: list[NewMessage] = []
        for exchange in self.exchanges:
            for stored in (exchange.prompt, exchange.reply):
                if stored is None:
                    continue
                is_reply, is_running = (
                    stored is exchange.reply,
                    bool(self._running and stored is self._running.message),
                )
                messages.append(
                    NewMessage(
                        parent=len(messages) - 1 if messages else None,
                        role=stored.role,
                        text=exchange.text if is_reply else stored.text,
                        thinking=exchange.thinking if is_reply else stored.thinking,
                        state="interrupted" if is_running or stored.state == "generating" else stored.state,
                        created_s=stored.created_s,
                        is_shown=True,
                        stats=stored.stats,
                        typed_characters=stored.typed_characters,
                    )
                )
        return tuple(messages)

    def _branch_off(self) -> None:
        """Go on with the running reply as another version of it, because another process goes on with it too."""
        running = self._running
        assert running is not None
        exchange = running.exchange
        running.message = exchange.reply = self._store.begin_reply(exchange.prompt.id)
        running.unsaved_text, running.unsaved_thinking = exchange.text, exchange.thinking
        self._news.append(TAKEN_OVER)

    def _notice_deletion(self) -> None:
        if self.chat and not self._is_deletion_known and self._store.is_deleted(self.chat.id):
            self._is_deletion_known = True
            self._news.append(DELETED)

    def _show(self, chat: Chat) -> None:
        exchanges: list[Exchange] = []
        for message in self._store.path(chat.id):
            if message.role == "user":
                exchanges.append(Exchange(message))
            elif exchanges:
                exchanges[-1].reply = message
                exchanges[-1].text, exchanges[-1].thinking = message.text, message.thinking
        self.chat, self.exchanges, self._epoch = chat, exchanges, self._store.epoch
        self._is_deletion_known = False
