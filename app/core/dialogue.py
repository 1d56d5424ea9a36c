"""One reply after another: a message goes to the engine, and the reply grows in the conversation and in the view.

The same for every front end. Knows no screen: everything is shown through a ReplyView. `ask` and `ask_instead` may
raise StoreError; the message is then not sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from app.core.comparison import Comparison, requests_to_compare
from app.core.conversation import Conversation
from app.core.current_pair import CurrentPair
from app.core.gauges import Gauges
from app.core.message_files import split_message
from app.core.pair_choice import PairChoice
from app.core.phase import Phase
from app.core.queued_messages import QueuedMessage
from app.core.reply_facts import ReplyFacts
from app.core.reply_settings import ReplySettings
from app.core.reply_view import ReplyView, Tell
from app.core.schema_file import read_schema
from app.core.store_notices import StoreNotices, storing
from app.core.turn_stats import turn_stats
from app.store.errors import StoreError
from app.store.records import FinalState, StoredMessage
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import (
    Answering,
    Died,
    DraftSetting,
    Event,
    Failed,
    Finished,
    FinishReason,
    Loading,
    Notice,
    Part,
    Prefilled,
    Ready,
    Round,
    Silent,
    Started,
)
from models.paths import expanded


class Dialogue:
    """At most one reply runs at a time, and the phase says how far it is."""

    def __init__(
        self,
        engine: EngineHandle,
        conversation: Conversation,
        pair: CurrentPair,
        settings: ReplySettings,
        view: ReplyView,
        tell: Tell,
        notices: StoreNotices,
        *,
        stop_key: str = "esc",
    ) -> None:
        """stop_key: the key that stops a reply, as sentences name it."""
        self.phase = Phase.LOADING
        self.conversation = conversation
        self.pair = pair
        self.settings = settings
        self.gauges = Gauges(pair, settings)
        self.facts = ReplyFacts(pair.baseline)
        """Of the running reply, or the last one."""
        self._engine = engine
        self._view = view
        self._tell = tell
        self._notices = notices
        self._stop_key = stop_key
        self._last_id = 0
        self._awaited: int | None = None
        """The request of the running reply; events about other requests are ignored."""
        self._draft_length: DraftSetting = 0
        """What the running reply drafts with."""
        self._comparison: Comparison | None = None
        self._queued: list[QueuedMessage] = []
        """In the order of sending."""
        self._is_message_new = False
        """Whether the running reply is the first one to its message."""

    def is_free(self) -> bool:
        """Whether a reply can begin now. If not, tells the person why."""
        if self.phase.is_busy:
            self._tell(self.why_busy)
        return not self.phase.is_busy

    @property
    def why_busy(self) -> str:
        """Why the next message has to wait."""
        if self.phase is Phase.COMPARING:
            return f"A comparison is running. Press {self._stop_key} to end it."
        if self.phase is Phase.STOPPING:
            return "The reply is still stopping. Try again in a moment."
        return f"A reply is running. Press {self._stop_key} to stop it."

    # From the person

    def begin_message(self) -> None:
        """The files of a message are being read."""
        self._enter(Phase.READING_FILES)

    def take_back_message(self) -> None:
        """The message whose files were being read is not sent."""
        if self.phase is Phase.READING_FILES:
            self._rest()
        if not self.phase.is_busy:
            self._return_queue()

    @property
    def can_queue(self) -> bool:
        """Whether a message can wait for what runs: a reply, or another message whose files are being read."""
        return self.phase.is_replying or self.phase is Phase.READING_FILES

    def queue(self, message: QueuedMessage) -> None:
        """Send this message when the running reply is complete."""
        self._queued.append(message)
        self._view.show_queue(self._queued)

    def take_back_queue(self) -> list[QueuedMessage]:
        """The messages that wait; they are not sent."""
        queued, self._queued = self._queued, []
        if queued:
            self._view.show_queue(())
        return queued

    async def ask(self, text: str, typed_characters: int | None = None) -> None:
        """Send a message: store it, then ask the engine.

        typed_characters: how much of the text the person typed, before its files; None: all of it.
        """
        self._store(lambda: self.conversation.ask(text, typed_characters))
        await self._request(lambda message: self._view.show_message(message, replaces_last=False))

    async def ask_instead(self, text: str, typed_characters: int | None = None) -> None:
        """Send a message in place of the last one, which stays in another version of the chat. See `ask`."""
        self._store(lambda: self.conversation.edit(text, typed_characters))
        await self._request(lambda message: self._view.show_message(message, replaces_last=True))

    async def regenerate(self) -> None:
        """Request another reply to the last message."""
        if not self.is_free():
            return
        with storing(self._tell):
            if not self.conversation.regenerate():
                self._tell("There is no reply to regenerate yet.")
                return
            await self._request()

    async def go_on(self) -> None:
        """Continue a reply that was stopped."""
        if not self.is_free():
            return
        with storing(self._tell):
            if not self.conversation.go_on():
                self._tell("Nothing to continue: the last reply is complete.")
                return
            await self._request()

    def last_message(self) -> StoredMessage | None:
        """The message to edit. None if there is none, or a reply is running; tells the person which."""
        if not self.is_free():
            return None
        last = self.conversation.last
        if last is None:
            self._tell("There is no message to edit yet.")
        return last.prompt if last else None

    def stop(self) -> None:
        """Stop what runs: a reply at its next round, keeping its text, a comparison, or loading.

        Before the reply's first word, its message goes back to the prompt. So do the messages that wait for the
        reply; those sent from now on wait until it has stopped. An engine that does not answer is restarted.
        """
        if self.pair.is_silent:
            self._restart_engine()
            return
        match self.phase:
            case Phase.WAITING if self.pair.is_loading:
                self._return_unanswered_message()
                self.abandon()
            case Phase.WAITING | Phase.REPLYING:
                self._enter(Phase.STOPPING)
                self._engine.cancel()
                self._return_unanswered_message()
                self._return_queue()
            case Phase.COMPARING if self._comparison is not None:
                self._comparison.stop()
            case Phase.LOADING:
                self.pair.stop_loading()
                self._rest()

    def _restart_engine(self) -> None:
        if self.phase is not Phase.STOPPING:  # else it is in the prompt already
            self._return_unanswered_message()
        self.abandon()
        if self._comparison is not None:
            self._comparison.hear(Died("The engine was restarted."))
        self.pair.restart()
        self._show_pair()

    def abandon(self) -> None:
        """End the running reply at once, keeping its text."""
        if self.phase.is_replying:
            self._engine.cancel()
            self._end_reply("stopped")
            self._return_queue()

    def leave(self) -> None:
        """End the running reply, because another chat or version is about to be shown."""
        if self.phase.is_replying:
            self.abandon()
            self._tell("The reply was stopped. To go on with it, open its chat and use /continue.")
        if not self.phase.is_busy:
            self._rest()

    def set_drafting(self, setting: DraftSetting | Literal["on"]) -> bool:
        """Draft this many tokens per round, also in the running reply; on: as many as before drafting was off.

        False if there is no drafter, which the person is told.
        """
        if not self.pair.has_drafter:
            self._tell(self.pair.why_no_drafting("switch on"))
            return False
        with storing(self._tell):
            self.settings.set_drafting(setting)
        self._send_draft_length()
        return True

    def change_settings(self, values: Mapping[str, Any]) -> None:
        """Set these values in this chat, and tell the person what has changed."""
        with storing(self._tell):
            self._tell(self.settings.change(values))
        if values.get("think") and not self.pair.can_think:
            self._tell(
                f"{self.pair.choice.title} cannot think, so its replies stay the same. Other models can: /model.",
                severity="warning",
            )
        self._send_draft_length()

    def use_schema(self, file: str) -> None:
        """Hold the replies to the JSON schema in a file, or with `off` to none, and tell the person."""
        try:
            schema = None if file == "off" else read_schema(expanded(file))
        except SlipstreamError as error:
            self._tell(str(error), severity="error")
        else:
            self._tell(self.settings.use_schema(schema))

    def switch_pair(self, choice: PairChoice, name: str) -> None:
        """Load another pair. name: what the person called it, to remember it by."""
        self.pair.switch(choice, name)
        self.gauges.forget_pair()
        self._rest()

    def compare(self, setting: DraftSetting | None = None) -> Comparison | None:
        """Replay the last message without and with drafting; the chat stays as it is.

        setting: to draft with; None: as in this chat. Returns None if there is nothing to compare, and tells the
        person why.
        """
        if not self.is_free():
            return None
        if self.conversation.last is None:
            self._tell("There is nothing to compare yet: send a message first.")
        elif not self.pair.has_drafter:
            self._tell(self.pair.why_no_drafting("compare"))
        else:
            draft_length = setting or self.settings.draft_length_when_on
            requests = requests_to_compare(
                self.conversation.to_send(), self.settings.options, draft_length, (self._new_id(), self._new_id())
            )
            self._comparison = Comparison(self._engine, requests)
            self._enter(Phase.COMPARING)
            self._comparison.start()
        return self._comparison

    def end_comparison(self) -> None:
        """The comparison is no longer shown."""
        if self._comparison is not None:
            self._comparison.stop()
            self._comparison = None
            self._rest()

    # From the engine

    async def hear(self, event: Event) -> None:
        """Handle one event. Events about earlier replies are dropped."""
        self.conversation.beat()
        if self._comparison is not None:
            self._comparison.hear(event)
        match event:
            case Loading():
                self.pair.loading(event)
                self._show_pair()
            case Ready():
                self.pair.loaded(event)
                self._show_pair()
            case Notice(message=message):
                self._tell(message)
            case Silent(message=message):
                self.pair.is_silent = True
                way_out = f"Wait for it, or press {self._stop_key} to restart it."
                self._tell(f"{message} {way_out}", severity="warning", timeout=10)
                self._view.show_phase(self.phase, "engine does not answer", is_error=True)
            case Answering():
                self.pair.is_silent = False
                self._tell("The engine answers again.")
                self._enter(self.phase) if self.phase.is_busy else self._rest()
            case Failed(id=None, message=message):
                self.pair.failed("not loaded")
                loading = "" if self.pair.choice.is_served else "The model could not be loaded. "
                await self._break_off(f"{loading}{message}")
            case Died(message=message):
                self.pair.failed("engine ended")
                await self._break_off(message)
            case Failed(id=id, message=message) if id == self._awaited:
                await self._break_off(message, "failed")
            case Started(id=id) if id == self._awaited:
                self.facts.add(event)
                self.gauges.start(event)
                self._enter_reading(event.cached_tokens, event.prompt_tokens)
            case Prefilled(id=id, done_tokens=done, total_tokens=total) if id == self._awaited:
                self._enter_reading(done, total)
            case Round(id=id) if id == self._awaited:
                self._grow(event)
                self.gauges.add(event, self.facts.stats.ttft_s)
            case Part(id=id) if id == self._awaited:
                self._grow(event)
                self.gauges.follow(self.facts.stats)
            case Finished(id=id, reason=reason) if id == self._awaited:
                self._grow(event)
                self.gauges.follow(self.facts.stats)
                self._tell_if_empty(reason)
                self._end_reply(
                    "complete" if reason == "stop" else "stopped", "stopped" if reason == "cancelled" else ""
                )
                self._send_next()

    def keep(self, event: Event) -> None:
        """Store what an event adds to the running reply, once the view is gone."""
        if isinstance(event, Round | Part | Finished) and event.id == self._awaited:
            self.conversation.append(event.text, event.thinking)

    # The reply

    def _store(self, write: Callable[[], None]) -> None:
        try:
            write()
        except StoreError:
            if self.phase is Phase.READING_FILES:
                self._rest()
            raise

    async def _request(self, show_message: Callable[[StoredMessage], Awaitable[None]] | None = None) -> None:
        """Ask the engine for the reply to the last message, or for the rest of a stopped one.

        show_message: None if the message is shown already.
        """
        exchange = self.conversation.last
        assert exchange is not None
        self._is_message_new = show_message is not None
        self._awaited = id = self._new_id()
        self.facts = ReplyFacts(self.pair.baseline)
        self.pair.message_sent()
        self._enter(Phase.WAITING)
        self._show_store()
        # While the screen is laid out, the person may stop the reply or open another chat.
        if show_message is not None:
            await show_message(exchange.prompt)
            if exchange is not self.conversation.last:
                await self._view.show_chat(self.conversation)
        if id == self._awaited:
            await self._view.begin_reply(exchange.text, exchange.thinking)
        if id != self._awaited:
            return
        self._draft_length = self.settings.draft_length
        try:
            messages, chat_id = self.conversation.to_send(), self.conversation.stored_id
            self._engine.generate(self.settings.options.request(id, messages, chat_id))
            if self.phase is Phase.STOPPING:
                self._engine.cancel()  # the cancel of `stop` came before the request
        except SlipstreamError as error:
            self.pair.failed("engine ended")
            await self._break_off(str(error))

    def _grow(self, part: Round | Part | Finished) -> None:
        self.facts.add(part)
        self.conversation.append(part.text, part.thinking)
        self._view.grow_reply(part)
        if self.phase is not Phase.STOPPING:
            self._enter(Phase.REPLYING, "thinking" if part.thinking else "")

    def _tell_if_empty(self, reason: FinishReason) -> None:
        exchange = self.conversation.last
        if reason != "cancelled" and exchange and not (exchange.text or exchange.thinking):
            self._tell("The reply is empty: the model ended it without a word.", severity="warning")

    async def _break_off(self, message: str, status: str = "") -> None:
        """End the running reply, if there is one. If it has no text, its message goes back to the prompt."""
        if self.phase.is_replying and (exchange := self.conversation.last):
            self._end_reply("failed", status, error=message)
            if not exchange.text:
                typed, files = split_message(exchange.prompt.text, exchange.prompt.typed_characters)
                self._view.give_back(typed, [file.mention for file in files])
            self._return_queue()
        elif not self.phase.is_busy:
            self._rest()
        await self._view.show_error(message)

    def _end_reply(self, state: FinalState, status: str = "", error: str = "") -> None:
        """status: for the top line; empty: as usual. error: why the reply failed."""
        exchange = self.conversation.last
        stats = turn_stats(self.facts, self.pair.ready, error)
        with storing(self._tell):
            self.conversation.end(state, stats)
        has_text = exchange is not None and bool(exchange.text or exchange.thinking)
        self._view.end_reply(stats, state, is_empty=not has_text and self.facts.finished is None)
        self._awaited = None
        self._rest(status, is_error=bool(error))
        self._show_store()

    def _return_unanswered_message(self) -> None:
        """Put the message back in the prompt, to be changed and sent again, if the reply has no word yet."""
        exchange = self.conversation.last
        if self._is_message_new and exchange is not None and not (exchange.text or exchange.thinking):
            self._view.edit_again(exchange.prompt)

    def _send_next(self) -> None:
        """Send the first of the messages that wait."""
        if self._queued and not self.phase.is_busy:
            message = self._queued.pop(0)
            self._view.show_queue(self._queued)
            self._view.send_queued(message)

    def _return_queue(self) -> None:
        """Give back the messages that wait: the reply before them did not end by itself."""
        if queued := self.take_back_queue():
            self._view.return_queue(queued)

    def _send_draft_length(self) -> None:
        if self.phase.is_replying and self._draft_length != self.settings.draft_length:
            self._draft_length = self.settings.draft_length
            self._engine.set_draft_length(self._draft_length)

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    # To the view

    def _enter(self, phase: Phase, status: str = "", *, is_error: bool = False) -> None:
        self.phase = phase
        self._view.show_phase(phase, status or phase.value, is_error=is_error)

    def _enter_reading(self, done: int, total: int) -> None:
        if self.phase is not Phase.STOPPING:
            self._enter(Phase.WAITING, f"reading prompt {done} of {total}")

    def _rest(self, status: str = "", *, is_error: bool = False) -> None:
        """No reply is running. status: how the last one ended; empty: as usual."""
        phase = Phase.LOADING if self.pair.is_loading else Phase.IDLE
        self._enter(phase, status or self.pair.status, is_error=is_error or self.pair.has_failed)

    def _show_pair(self) -> None:
        if not self.phase.is_busy:
            self._rest()
        elif self.phase is Phase.WAITING:
            self._enter(Phase.WAITING, self.pair.status if self.pair.is_loading else "")

    def _show_store(self) -> None:
        chat = self.conversation.chat
        self._view.show_title(chat.title if chat else "")
        self._notices.check()
        self._notices.tell_news(self.conversation.take_news())
