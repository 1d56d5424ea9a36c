"""One reply after another: a message goes to the engine, the reply grows in the conversation and on the screen.

What the person may ask for is here, and what the engine reports about a reply; which pair answers is not.
Methods that begin a reply may raise StoreError, with nothing begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from textual.notifications import SeverityLevel

from app.core.attachments import split
from app.core.chat_options import ChatOptions
from app.core.conversation import Conversation
from app.core.gauges import Gauges
from app.core.turn_stats import reply_line, turn_stats
from app.store.errors import StoreError
from app.store.records import FinalState
from app.tui.bars.top_line import TopLine
from app.tui.keys import key_in
from app.tui.prompt.prompt import Prompt
from app.tui.transcript.transcript import Transcript
from app.tui.transcript.turn import Reply
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Died, Event, Failed, Finished, Generate, Prefilled, Ready, Round, Started

OUTCOMES = ("stopped", "failed")
"""States in the top line that are about the last reply alone."""


class Tell(Protocol):
    """Tells the person something, in passing."""

    def __call__(self, message: str, *, severity: SeverityLevel = ..., timeout: float | None = ...) -> None: ...


@contextmanager
def storing(tell: Tell) -> Iterator[None]:
    """What the store cannot do inside is told."""
    try:
        yield
    except StoreError as error:
        tell(str(error), severity="error")


class Dialogue:
    """At most one reply is awaited at a time."""

    def __init__(
        self,
        engine: EngineHandle,
        conversation: Conversation,
        gauges: Gauges,
        options: ChatOptions,
        screen: tuple[TopLine, Transcript, Prompt],
        tell: Tell,
        on_change: Callable[[], None],
    ) -> None:
        """on_change: called whenever a reply begins or ends."""
        self.options = options
        """What the next request asks for."""
        self.loaded: Ready | None = None
        """The pair that answers; None until there is one."""
        self.reply: Reply | None = None
        """The running reply on the screen."""
        self.is_comparing = False
        """Whether the engine answers for a comparison."""
        self._engine = engine
        self._conversation = conversation
        self._gauges = gauges
        self._top_line, self._transcript, self._prompt = screen
        self._tell = tell
        self._on_change = on_change
        self._last_id = 0
        self._awaited: int | None = None
        """The request whose reply is awaited."""
        self._prompt_read: Started | None = None
        self._is_stopping = False

    @property
    def is_running(self) -> bool:
        """Whether a reply is awaited."""
        return self._awaited is not None

    def is_free(self) -> bool:
        """Whether a reply could begin; what is in the way is said."""
        if self.is_comparing:
            self._tell("A comparison is running: escape ends it.")
        elif self._prompt.is_waiting:
            self._tell(f"A reply is running: {key_in(self._transcript.app, 'stop')} stops it.")
        return not (self.is_comparing or self._prompt.is_waiting)

    def new_id(self) -> int:
        """For a request; what is reported under an id that is not awaited here belongs to somebody else."""
        self._last_id += 1
        return self._last_id

    # From the person

    async def ask(self, text: str) -> None:
        """Send a message: kept first, then asked."""
        self._conversation.ask(text)
        await self._transcript.add_turn(text)
        await self._request()

    async def ask_instead(self, text: str) -> None:
        """Send a message in place of the last one, which stays beside it."""
        self._conversation.edit(text)
        await self._transcript.drop_turn()
        await self._transcript.add_turn(text)
        await self._request()

    async def regenerate(self) -> None:
        """Ask for the last reply once more."""
        if not self.is_free():
            return
        with storing(self._tell):
            if self._transcript.last_turn is None or not self._conversation.regenerate():
                self._tell("There is no reply to regenerate yet.")
                return
            self._transcript.follow()
            await self._request()

    async def go_on(self) -> None:
        """Let a reply that was stopped go on where it is."""
        if not self.is_free():
            return
        with storing(self._tell):
            exchange = self._conversation.last
            if exchange is None or not self._conversation.go_on():
                self._tell("The last reply is complete; there is nothing to go on with.")
                return
            self._transcript.follow()
            await self._request(exchange.text, exchange.thinking)

    def last_message(self) -> str | None:
        """What the person may change; None, and said: there is nothing, or a reply runs."""
        if not self.is_free():
            return None
        last = self._conversation.last
        if last is None:
            self._tell("There is no message to change yet.")
        return last.prompt.text if last else None

    def stop(self) -> None:
        """End the reply at its next round; what has been written stays."""
        if self.is_running and not self._is_stopping:
            self._is_stopping = True
            self._top_line.say("stopping")
            self._engine.cancel()

    def abandon(self) -> None:
        """End the reply at once, if one is running; what has been written stays."""
        if self.is_running:
            self._engine.cancel()
            self._end_reply("stopped")
            self._top_line.say("ready")

    def leave(self) -> None:
        """Another chat is shown, or another version: how the last reply of this one ended is old, and a message
        of it that was being changed stays as it is; up brings back what was typed."""
        self.abandon()
        if self._prompt.is_editing:
            self._prompt.discard()
        if self._top_line.state in OUTCOMES:
            self._top_line.say("ready")

    # From the engine

    async def hear(self, event: Event) -> None:
        """Put one event about a reply where it belongs; those of earlier replies are dropped."""
        match event:
            case Started(id=id, prompt_tokens=total, cached_tokens=cached) as started if id == self._awaited:
                self._prompt_read = started
                self._top_line.say(f"reading prompt {cached} of {total}")
            case Prefilled(id=id, done_tokens=done, total_tokens=total) if id == self._awaited:
                self._top_line.say(f"reading prompt {done} of {total}")
            case Round() as done if done.id == self._awaited:
                self._gauges.add(done)
                self._transcript.count_new(len(done.token_ids))
                self._grow(done)
            case Finished() as finished if finished.id == self._awaited:
                self._grow(finished)
                self._end_reply("complete" if finished.reason == "stop" else "stopped", finished)
                self._top_line.say("stopped" if finished.reason == "cancelled" else "ready")
            case Failed(id=id, message=words) if id == self._awaited:
                await self.break_off(words, "failed")
            case Died(message=words):
                await self.break_off(words, "engine ended")

    def keep(self, event: Event) -> None:
        """What an event adds to the running reply, where there is no screen any more."""
        if isinstance(event, Round | Finished) and event.id == self._awaited:
            self._conversation.append(event.text, event.thinking)

    async def break_off(self, words: str, state: str) -> None:
        """The running reply, if any, ends here; what it has stays, and without a word the prompt comes back."""
        if self.is_running and (exchange := self._conversation.last):
            self._end_reply("failed", trouble=words)
            if not exchange.text:
                typed, files = split(exchange.prompt.text)
                self._prompt.offer(typed, [each.mention for each in files])
        self._top_line.say(state, is_trouble=True)
        await self._transcript.add_error(words)

    # To the screen

    def show_version(self) -> None:
        """Say at the last turn which of the chat's versions this is."""
        if turn := self._transcript.last_turn:
            with storing(self._tell):
                turn.say_version(self._conversation.version)

    async def _request(self, begun: str = "", thinking: str = "") -> None:
        """Ask the engine for the reply to the newest message, or for the rest of one that has begun."""
        turn = self._transcript.last_turn
        assert turn is not None
        self.reply = await turn.begin_reply()
        self.reply.think(thinking)
        self.reply.write(begun)
        self._awaited = self.new_id()
        self._prompt_read = None
        self._prompt.is_waiting = True
        self._gauges.begin_reply()
        self._top_line.say("waiting")
        self._on_change()
        request = Generate(
            id=self._awaited,
            messages=self._conversation.to_send(),
            sampling=self.options.sampling,
            draft_length=self._gauges.draft_length,
            max_tokens=self.options.max_tokens,
            is_thinking=self.options.is_thinking,
        )
        try:
            self._engine.generate(request)
        except SlipstreamError as error:
            await self.break_off(str(error), "engine ended")

    def _grow(self, part: Round | Finished) -> None:
        self._conversation.append(part.text, part.thinking)
        if self.reply is not None:
            self.reply.think(part.thinking)
            self.reply.write(part.text, part.drafted_characters if isinstance(part, Round) else 0)
        if not self._is_stopping:
            self._top_line.say("thinking" if part.thinking else "generating")

    def _end_reply(self, state: FinalState, finished: Finished | None = None, trouble: str = "") -> None:
        exchange = self._conversation.last
        stats = turn_stats(self._gauges.reply, self.loaded, self._prompt_read, finished, trouble)
        with storing(self._tell):
            self._conversation.end(state, stats)
        if self.reply is not None:
            has_words = bool(exchange and (exchange.text or exchange.thinking)) or finished is not None
            self.reply.finish(reply_line(stats, broke_off=state == "failed") if has_words else "")
            self.show_version()
        self.reply = None
        self._awaited = None
        self._prompt.is_waiting = False
        self._is_stopping = False
        self._on_change()
