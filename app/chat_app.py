"""The chat: what the person types goes to the engine, what the engine reports goes on the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TypeVar

from textual import events, on
from textual.app import ComposeResult, SystemCommand
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer

from app.chat_options import ChatOptions
from app.chats_screen import ChatsScreen
from app.conversation import FLUSH_S, Conversation
from app.figures import reply_line
from app.gauge_panel import PANEL_WIDTH, GaugePanel
from app.gauge_strip import GaugeStrip
from app.gauges import Gauges
from app.help_screen import HelpScreen
from app.keys import CHAT_KEYS
from app.models_screen import ModelsScreen
from app.models_show import own_and_bundled
from app.pair_choice import PairChoice
from app.prompt import Prompt
from app.safe_app import SafeApp
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import FinalState
from app.top_line import NO_DRAFTER, TopLine
from app.transcript import Transcript
from app.turn import Reply
from app.turn_stats import turn_stats
from mlx_engine.client import EngineHandle
from mlx_engine.errors import SlipstreamError
from mlx_engine.events import (
    Died,
    DraftSetting,
    Event,
    Failed,
    Finished,
    Generate,
    Loading,
    Notice,
    Prefilled,
    Ready,
    Round,
    Started,
)
from models.errors import ModelsError
from models.hub_cache import cache_folder
from models.machine import read_machine

T = TypeVar("T")

GAUGES_S = 0.25
"""Gauges move four times a second: more is not readable, and every redraw takes time from the engine."""
QUIT_WINDOW_S = 2.0
WIDE_COLUMNS = 100
"""From here on the panel takes the place of the strip by itself."""
NARROWEST_BESIDE_PANEL = 34
NARROW_COLUMNS = 80
"""Below, the footer closes up and leaves the palette out."""
SMALL = (60, 15)
"""Up to here no footer and no frame around the prompt."""
TINY = (39, 9)
"""Up to here nothing but transcript and prompt."""

WELCOME = """\
Type a message below and press enter; escape stops it.
ctrl+t turns drafting on or off; f1 explains the rest."""


class EngineReported(Message):
    """An event of the engine."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event


class ChatApp(SafeApp):
    """The terminal chat. Whoever runs it starts the engine before `run` and closes it afterwards.

    `return_code` is the exit code.
    """

    CSS_PATH = Path(__file__).with_name("chat_app.tcss")
    TITLE = "Slipstream"
    BINDINGS = CHAT_KEYS

    def __init__(
        self,
        engine: EngineHandle,
        pair: PairChoice,
        choose: Callable[[str], PairChoice],
        options: ChatOptions,
        store: ChatStore,
    ) -> None:
        """pair: what the engine loads; choose: a pair by name, or SlipstreamError or ModelsError."""
        super().__init__(options.log_path)
        self._engine = engine
        self._pair = pair
        self._pair_before: PairChoice | None = None
        """What to go back to if the pair that is loading cannot be loaded."""
        self._choose = choose
        self._options = options
        self._store = store
        self._store_notice: str | None = None
        """What was last said about the store."""
        self._conversation = Conversation(store, options.system)
        self._loaded: Ready | None = None
        self._prompt_read: Started | None = None
        self._gauges = Gauges(options.draft_length)
        self._last_draft_length: DraftSetting = options.draft_length or "auto"
        self._last_id = 0
        self._awaited: int | None = None
        """The request whose reply is awaited."""
        self._reply: Reply | None = None
        self._is_stopping = False
        self._has_news = True
        """Whether the gauges are behind the facts."""
        self._interrupted_s = float("-inf")
        self._wants_panel: bool | None = None
        """None: as wide as the window is."""
        about = f"\n\n{options.about_model}" if options.about_model else ""
        self._top_line = TopLine(pair.title)
        self._transcript = Transcript(WELCOME + about)
        self._strip = GaugeStrip()
        self._panel = GaugePanel()
        self._prompt = Prompt()
        self._footer = Footer()

    def compose(self) -> ComposeResult:
        """Top line; transcript, strip and prompt beside the panel; footer."""
        yield self._top_line
        with Horizontal(id="body"):
            with Vertical(id="chat"):
                yield self._transcript
                yield self._strip
                yield self._prompt
            yield self._panel
        yield self._footer

    def on_mount(self) -> None:
        """Land in the prompt and listen to the engine."""
        self._prompt.focus()
        self._say_state("loading")
        self._engine.on_event = self._hear
        self.set_interval(GAUGES_S, self._show_gauges)
        self.set_interval(FLUSH_S, self._keep)

    async def on_ready(self) -> None:
        """Go on with the chat that was asked for."""
        self._tell_of_store()
        if self._options.chat_id is not None:
            await self._open_chat(self._options.chat_id)

    def on_unmount(self) -> None:
        """Stop listening, and keep what a running reply has."""
        self._engine.on_event = None
        with suppress(StoreError):
            self._conversation.end("interrupted")

    def on_resize(self, event: events.Resize) -> None:
        """Gauges and frames give way to the transcript on small windows."""
        self._fit(event.size.width, event.size.height)

    # From the engine

    def _hear(self, event: Event) -> None:
        """Called on the engine's thread."""
        self.post_message(EngineReported(event))

    async def on_engine_reported(self, message: EngineReported) -> None:
        """Put one event of the engine on the screen."""
        self._has_news = True
        match message.event:
            case Loading(what=what):
                self._say_state(f"loading {what}")
            case Notice(message=words):
                self.notify(words)
            case Ready() as ready:
                self._loaded, self._pair_before = ready, None
                self._conversation.model, self._conversation.drafter = ready.target, ready.drafter
                self._gauges.loaded(ready)
                self._top_line.drafter = ready.drafter or NO_DRAFTER
                self._say_state("ready" if self._awaited is None else "waiting")
            case Started(id=id, prompt_tokens=total, cached_tokens=cached) as started if id == self._awaited:
                self._prompt_read = started
                self._say_state(f"reading prompt {cached} of {total}")
            case Prefilled(id=id, done_tokens=done, total_tokens=total) if id == self._awaited:
                self._say_state(f"reading prompt {done} of {total}")
            case Round() as done if done.id == self._awaited:
                self._gauges.add(done)
                self._transcript.count_new(len(done.token_ids))
                self._grow(done)
            case Finished() as finished if finished.id == self._awaited:
                self._grow(finished)
                self._end_reply("complete" if finished.reason == "stop" else "stopped", finished)
                self._say_state("stopped" if finished.reason == "cancelled" else "ready")
            case Failed(id=None, message=words):
                await self._break_off(f"The model could not be loaded. {words}", "not loaded")
                self._go_back()
            case Failed(id=id, message=words) if id == self._awaited:
                await self._break_off(words, "failed")
            case Died(message=words):
                await self._break_off(words, "engine ended")

    def _grow(self, part: Round | Finished) -> None:
        self._conversation.append(part.text, part.thinking)
        if self._reply is not None:
            self._reply.think(part.thinking)
            self._reply.write(part.text)
        if not self._is_stopping:
            self._say_state("thinking" if part.thinking else "generating")

    def _end_reply(self, state: FinalState, finished: Finished | None = None) -> None:
        exchange = self._conversation.last
        stats = turn_stats(self._gauges.reply, self._loaded, self._prompt_read, finished)
        try:
            self._conversation.end(state, stats)
        except StoreError as error:
            self.notify(str(error), severity="error")
        self._tell_of_store()
        if self._reply is not None:
            has_words = bool(exchange and (exchange.text or exchange.thinking)) or finished is not None
            self._reply.finish(reply_line(stats, broke_off=state == "failed") if has_words else "")
            self._show_siblings()
        self._reply = None
        self._awaited = None
        self._prompt.is_waiting = False
        self._is_stopping = False
        self.refresh_bindings()

    async def _break_off(self, words: str, state: str) -> None:
        """The running reply, if any, ends here; what it has stays, and without a word the prompt comes back."""
        if self._awaited is not None and (exchange := self._conversation.last):
            self._end_reply("failed")
            if not exchange.text:
                self._prompt.offer(exchange.prompt.text)
        self._say_state(state, is_trouble=True)
        await self._transcript.add_error(words)

    # From the person

    async def on_prompt_submitted(self, event: Prompt.Submitted) -> None:
        """Send a message: kept first, then asked."""
        try:
            self._conversation.ask(event.text)
        except StoreError as error:
            self._prompt.is_waiting = False
            self._prompt.offer(event.text)
            self.notify(str(error), severity="error")
            return
        await self._transcript.add_turn(event.text)
        await self._request()

    @on(Prompt.Refused)
    def _refuse(self) -> None:
        self.notify("A reply is running: escape stops it. Your text stays in the prompt.")

    @on(Prompt.FollowRequested)
    def _follow(self) -> None:
        self._transcript.follow()

    @on(Prompt.PageRequested)
    def _page(self, event: Prompt.PageRequested) -> None:
        self._transcript.page(event.pages)

    async def _request(self, begun: str = "", thinking: str = "") -> None:
        """Ask the engine for the reply to the newest message, or for the rest of one that has begun."""
        turn = self._transcript.last_turn
        assert turn is not None
        self._show_title()
        self._reply = await turn.begin_reply()
        self._reply.think(thinking)
        self._reply.write(begun)
        self._last_id += 1
        self._awaited = self._last_id
        self._prompt_read = None
        self._prompt.is_waiting = True
        self._gauges.begin_reply()
        self._say_state("waiting")
        self.refresh_bindings()
        request = Generate(
            id=self._last_id,
            messages=self._conversation.to_send(),
            sampling=self._options.sampling,
            draft_length=self._gauges.draft_length,
            max_tokens=self._options.max_tokens,
            is_thinking=self._options.is_thinking,
        )
        try:
            self._engine.generate(request)
        except SlipstreamError as error:
            await self._break_off(str(error), "engine ended")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Stop is greyed out while there is nothing to stop."""
        if action == "stop" and self._awaited is None:
            return None
        return True

    def action_stop(self) -> None:
        """End the reply at its next round; what has been written stays."""
        if self._awaited is not None and not self._is_stopping:
            self._is_stopping = True
            self._say_state("stopping")
            self._engine.cancel()

    def action_interrupt(self) -> None:
        """Copy a selection, else stop, else empty the prompt; twice in a row quits."""
        selected = self.screen.get_selected_text() or self._prompt.selected_text
        if selected:
            self._copy(selected, "the selection")
            return
        if monotonic() - self._interrupted_s < QUIT_WINDOW_S:
            self.exit()
            return
        self._interrupted_s = monotonic()
        if self._awaited is not None:
            self.action_stop()
            said = "Stopping. "
        elif self._prompt.text:
            self._prompt.discard()
            said = "Prompt emptied; up brings it back. "
        else:
            said = ""
        self.notify(f"{said}Press ctrl+c again to quit.", timeout=QUIT_WINDOW_S)

    def action_toggle_drafting(self) -> None:
        """Between off and the last draft length, also for the running reply."""
        gauges = self._gauges
        if not gauges.has_drafter:
            self.notify("This model runs without a drafter, so there is nothing to switch on.")
            return
        gauges.draft_length = 0 if gauges.draft_length else self._last_draft_length
        if self._awaited is not None:
            self._engine.set_draft_length(gauges.draft_length)
        self._has_news = True
        self._show_gauges()

    async def action_regenerate(self) -> None:
        """Ask for the last reply once more."""
        if self._awaited is not None:
            self.notify("A reply is running: escape stops it.")
        elif self._transcript.last_turn is None or not self._attempt(self._conversation.regenerate):
            self.notify("There is no reply to regenerate yet.")
        else:
            self._transcript.follow()
            await self._request()

    async def action_go_on(self) -> None:
        """Let a reply that was stopped go on where it is."""
        if self._awaited is not None:
            self.notify("A reply is running: escape stops it.")
        elif not self._conversation.can_go_on or not self._attempt(self._conversation.go_on):
            self.notify("The last reply is complete; there is nothing to go on with.")
        else:
            self._transcript.follow()
            exchange = self._conversation.last
            assert exchange is not None
            await self._request(exchange.text, exchange.thinking)

    async def action_walk(self, step: int) -> None:
        """Show another reply to the last message, or another message in its place, that was there before."""
        exchange = self._conversation.last
        if self._awaited is not None or exchange is None:
            return
        shown = next((m for m in (exchange.reply, exchange.prompt) if m and m.siblings > 1), None)
        if shown is None:
            self.notify("There is only this reply. ctrl+r makes another one.")
            return
        self._attempt(lambda: self._conversation.walk(shown.id, step))
        await self._show_conversation()

    async def action_chats(self) -> None:
        """List the chats that are kept."""
        if self._awaited is not None:
            self.notify("A reply is running: escape stops it.")
            return
        self._attempt(self._conversation.flush)
        self.push_screen(ChatsScreen(self._store), self._chat_chosen)

    async def _chat_chosen(self, chat_id: int | None) -> None:
        if chat_id is not None:
            await self._open_chat(chat_id)

    @on(ChatsScreen.Deleted)
    async def _chat_deleted(self, event: ChatsScreen.Deleted) -> None:
        if self._conversation.chat and self._conversation.chat.id == event.chat_id:
            await self.action_new_chat()

    @on(ChatsScreen.Renamed)
    def _chat_renamed(self, event: ChatsScreen.Renamed) -> None:
        if self._conversation.chat and self._conversation.chat.id == event.chat.id:
            self._conversation.chat = event.chat
            self._show_title()

    async def _open_chat(self, chat_id: int) -> None:
        try:
            self._conversation.open(chat_id)
        except StoreError as error:
            self.notify(str(error), severity="error")
            return
        self._gauges.forget_context()
        await self._show_conversation()

    async def _show_conversation(self) -> None:
        """Bring the transcript to what the conversation is now."""
        await self._transcript.show(self._conversation.exchanges)
        self._show_siblings()
        self._show_title()

    def _show_siblings(self) -> None:
        exchange, turn = self._conversation.last, self._transcript.last_turn
        if exchange and turn:
            shown = next((m for m in (exchange.reply, exchange.prompt) if m and m.siblings > 1), None)
            turn.say_sibling((shown.sibling, shown.siblings) if shown else None)

    def _show_title(self) -> None:
        self._top_line.title = self._conversation.chat.title if self._conversation.chat else ""

    def _attempt(self, change: Callable[[], T]) -> T | None:
        """Do something with the store; None, and a notification, if it cannot be done."""
        try:
            return change()
        except StoreError as error:
            self.notify(str(error), severity="error")
            return None

    def _keep(self) -> None:
        self._conversation.flush()
        self._tell_of_store()

    def _tell_of_store(self) -> None:
        if self._store.notice != self._store_notice:
            self._store_notice = self._store.notice
            if self._store_notice:
                self.notify(self._store_notice, severity="warning", timeout=20)

    async def action_new_chat(self) -> None:
        """Begin a new conversation; what stands in the prompt stays."""
        if self._awaited is not None:
            self._engine.cancel()
            self._end_reply("stopped")
            self._say_state("ready")
        self._conversation.clear()
        self._gauges.forget_context()
        self._show_title()
        self._has_news = True
        await self._transcript.clear()

    def action_copy_answer(self) -> None:
        """Put the last answer on the clipboard."""
        answer = self._conversation.last_answer
        if answer is None:
            self.notify("There is no answer to copy yet.")
        else:
            self._copy(answer, "the last answer")

    def action_toggle_thoughts(self) -> None:
        """Fold or unfold the thoughts of all replies, as the newest ones are not."""
        if not self._transcript.toggle_thoughts():
            self.notify("There are no thoughts to show; `slipstream --think` lets the model think first.")

    def action_models(self) -> None:
        """List the models: switch to one, or fetch one."""
        if self._awaited is not None:
            self.notify("A reply is running: escape stops it.")
            return
        try:
            catalog = own_and_bundled()
        except ModelsError as error:
            self.notify(str(error), severity="error")
            return
        machine = read_machine(self._loaded.working_set_bytes if self._loaded else None)
        self.push_screen(ModelsScreen(catalog, cache_folder(), machine, self._pair.title), self._model_chosen)

    def _model_chosen(self, name: str | None) -> None:
        if name is None or name == self._pair.title:
            return
        try:
            pair = self._choose(name)
        except (SlipstreamError, ModelsError) as error:
            self.notify(str(error), severity="error")
            return
        self._pair_before = self._pair
        self._switch(pair)

    def _go_back(self) -> None:
        """Load the pair again that was there before one that cannot be loaded."""
        if self._pair_before is not None:
            pair, self._pair_before = self._pair_before, None
            self.notify(f"Going back to {pair.title}.")
            self._switch(pair)

    def _switch(self, pair: PairChoice) -> None:
        self._pair = pair
        self._top_line.model, self._top_line.drafter = pair.title, None
        self._gauges.forget_pair()
        self._has_news = True
        self._say_state("unloading")
        if pair.notice:
            self.notify(pair.notice)
        # It waits until the old pair's memory is back.
        self.run_worker(partial(self._engine.switch, pair.load), thread=True, exclusive=True, exit_on_error=False)

    def action_toggle_panel(self) -> None:
        """Show or hide the gauge panel, whatever the width suggests."""
        if self.size.width < PANEL_WIDTH + NARROWEST_BESIDE_PANEL:
            needed = PANEL_WIDTH + NARROWEST_BESIDE_PANEL
            self.notify(f"The gauge panel needs a window of {needed} columns; this one has {self.size.width}.")
            return
        self._wants_panel = not self._panel.display
        self._fit(*self.size)

    def action_help(self) -> None:
        """Explain keys and gauges."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def action_save_screenshot(self) -> None:
        """Save the screen as an SVG file in the current folder."""
        self.notify(f"Saved {self.save_screenshot()}")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every action by name."""
        yield SystemCommand("Drafting on or off", "ctrl+t", self.action_toggle_drafting)
        yield SystemCommand("Stop the reply", "escape", self.action_stop)
        yield SystemCommand("Regenerate the last reply", "ctrl+r", self.action_regenerate)
        yield SystemCommand("Go on with a stopped reply", "it grows where it is", self.action_go_on)
        yield SystemCommand("Another reply to the last message", "the one before", lambda: self.action_walk(-1))
        yield SystemCommand("The next reply to the last message", "the one after", lambda: self.action_walk(1))
        yield SystemCommand("Chats", "f4", self.action_chats)
        yield SystemCommand("Models", "f2", self.action_models)
        yield SystemCommand("New chat", "ctrl+n", self.action_new_chat)
        yield SystemCommand("Copy the last answer", "ctrl+y", self.action_copy_answer)
        yield SystemCommand("Fold or unfold the thoughts", "ctrl+o", self.action_toggle_thoughts)
        yield SystemCommand("Send the message", "enter", self._prompt.action_send)
        yield SystemCommand("New line in the prompt", "ctrl+j", self._prompt.action_newline)
        yield SystemCommand("Gauge panel on or off", "f3", self.action_toggle_panel)
        yield SystemCommand("Help", "f1", self.action_help)
        yield SystemCommand("Theme", "change the colours", self.action_change_theme)
        yield SystemCommand(
            "Screenshot", "save the screen as SVG", lambda: self.set_timer(0.1, self.action_save_screenshot)
        )
        yield SystemCommand("Quit", "ctrl+q", self.action_quit)

    # To the screen

    def _say_state(self, state: str, *, is_trouble: bool = False) -> None:
        self._top_line.state = state
        self._top_line.is_trouble = is_trouble

    def _show_gauges(self) -> None:
        """Bring the gauges up to the facts; nothing while there is no news."""
        if not self._has_news:
            return
        self._has_news = False
        if self._awaited is not None:
            self._gauges.sample_pace()
        reading = self._gauges.reading()
        self._strip.reading = reading
        if self._panel.display:
            self._panel.show(reading)

    def _fit(self, width: int, height: int) -> None:
        wants_panel = width >= WIDE_COLUMNS if self._wants_panel is None else self._wants_panel
        has_panel = wants_panel and width >= PANEL_WIDTH + NARROWEST_BESIDE_PANEL and height > SMALL[1]
        base = self.screen_stack[0]
        is_tiny = width <= TINY[0] or height <= TINY[1]
        is_small = width <= SMALL[0] or height <= SMALL[1]
        base.set_class(is_tiny, "-tiny")
        base.set_class(is_small and not is_tiny, "-small")
        base.set_class(width < NARROW_COLUMNS, "-narrow")
        self._footer.compact = width < NARROW_COLUMNS
        self._panel.display = has_panel
        self._strip.display = not has_panel and not is_tiny
        self._has_news = True
        self._show_gauges()

    def _copy(self, text: str, what: str) -> None:
        self.copy_to_clipboard(text)
        self.notify(f"Copied {what} ({len(text):,} characters).")
