"""The chat: what the person types goes to the engine, what the engine reports goes on the screen.

Every action that a key, a slash command or the palette can run is here, and most hand on to whoever does it:
`Dialogue` (one reply after another), `OpenChat` (the chats that are kept), `PairInUse` (the models),
`ReplySettings` (how replies are made), `ChatView` (what is on the screen).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from textual import events, on
from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding
from textual.message import Message
from textual.screen import Screen
from textual.theme import Theme
from textual.widgets._toast import ToastHolder

from app.core.attachments import written
from app.core.chat_options import ChatOptions
from app.core.chat_params import sampling_in_words, system_in_passing
from app.core.commands import COMMANDS, Command
from app.core.comparison import Comparison, questions
from app.core.conversation import KEEP_S, Conversation
from app.core.dialogue import Dialogue, storing
from app.core.gauges import Gauges
from app.core.no_drafter import news_of_refusal, why_there_is_nothing
from app.core.pair_choice import PairChoice
from app.core.pair_in_use import Choose, PairInUse
from app.core.prompt_history import PromptHistory
from app.core.reply_settings import ReplySettings
from app.shell.models_show import own_and_bundled
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.system import places
from app.system.exit_codes import INTERRUPTED
from app.text.sanitise import cleaned
from app.tui.bars.top_line import TopLine
from app.tui.chat_view import ChatView
from app.tui.keys import CHAT_KEYS, changed_keys, key_in, keymap_of, keys_of
from app.tui.layout import PANEL_NEEDS_COLUMNS, PANEL_NEEDS_ROWS, layout
from app.tui.mailbox import Mailbox
from app.tui.open_chat import OpenChat
from app.tui.pauses import ROUNDS_S
from app.tui.prompt.composer import Composer
from app.tui.prompt.prompt import Prompt
from app.tui.screens.chats import ChatsScreen
from app.tui.screens.comparison import AbScreen
from app.tui.screens.help import help_screen
from app.tui.screens.models import ModelsScreen
from app.tui.screens.params import ParamsScreen
from app.tui.screens.table import TableScreen
from app.tui.terminal.safe_app import SafeApp
from app.tui.transcript.code_block import CodeBlock
from app.tui.transcript.markdown import code_blocks
from app.tui.transcript.transcript import Transcript
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Counted, Died, DraftSetting, Event, Failed, Loading, Notice, Ready, Round
from models.hub_cache import cache_folder
from models.machine import read_machine

QUIT_WINDOW_S = 2.0

OVER_EVERYTHING = ("interrupt", "copy_answer", "quit")
OF_THE_CHAT = {each.action for each in CHAT_KEYS if isinstance(each, Binding)} - {*OVER_EVERYTHING} | {
    "ab",
    "paths",
}
"""Not for the screens over it, though a key that is ahead of what is typed reaches these from there as well."""

WINDOW_HEIGHTS = [(0, "-low"), (8, "-tall")]
"""Rows from which a window has the class: in low ones everything gives way to what is chosen from."""
WINDOW_WIDTHS = [(0, "-narrow"), (62, "-broad")]
"""Columns from which it has: narrow ones have no room beside a notice."""

WELCOME = """\
Type a message below; {send} sends it, {stop} stops the reply.
/ for commands, @ for files, {draft} for drafting; {help} explains the rest."""


class EngineReported(Message):
    """There is something in the mailbox."""


class ChatApp(SafeApp):
    """The terminal chat. Whoever runs it starts the engine before `run` and closes it afterwards.

    `return_code` is the exit code.
    """

    CSS_PATH = Path(__file__).with_name("chat_app.tcss")
    TITLE = "Slipstream"
    BINDINGS = CHAT_KEYS
    VERTICAL_BREAKPOINTS = WINDOW_HEIGHTS
    HORIZONTAL_BREAKPOINTS = WINDOW_WIDTHS

    def __init__(
        self, engine: EngineHandle, pair: PairChoice, choose: Choose, options: ChatOptions, store: ChatStore
    ) -> None:
        """pair: what the engine loads."""
        super().__init__(options.log_path)
        self._options = options
        self._use_keys(keymap_of(options.send_key, options.keys))
        self._shown_theme = self.theme
        self._engine = engine
        self._mail = Mailbox(lambda: self.post_message(EngineReported()))
        self._store = store
        self._interrupted_s = float("-inf")
        self._wants_panel = options.state.values.has_panel
        """None: as wide as the window is."""
        self._conversation = Conversation(store, options.system)
        self._gauges = Gauges(options.draft_length)
        self._composer = Composer(PromptHistory(options.history_path), self._offered)
        self._prompt = self._composer.prompt
        self._prompt.use_keys(keys_of("send", self.own_keys), keys_of("newline", self.own_keys))
        about = f"\n\n{options.about_model}" if options.about_model else ""
        keys = {id: key_in(self, id) for id in ("send", "stop", "draft", "help")}
        self._transcript = Transcript(WELCOME.format(**keys) + about)
        self._top_line = TopLine(pair.title)
        self._view = ChatView(self._top_line, self._transcript, self._composer, self._gauges)
        in_thread = partial(self.run_worker, thread=True, exit_on_error=False)
        self._pairs = PairInUse(engine, pair, choose, options, self._top_line, self.notify, in_thread)
        self._dialogue = Dialogue(
            engine,
            self._conversation,
            self._gauges,
            options,
            (self._top_line, self._transcript, self._prompt),
            self.notify,
            self._reply_began_or_ended,
        )
        self._replies = ReplySettings(options, engine, self._gauges, self._conversation, self._dialogue)
        self._open_chat = OpenChat(
            store, self._conversation, self._dialogue, self._replies, self._view, self.notify
        )

    def _use_keys(self, keymap: Mapping[str, str]) -> None:
        """The person's own, ahead of what a text area does with them."""
        self.own_keys = keymap
        self.set_keymap(keymap)
        for key, bindings in self._bindings.key_to_bindings.items():
            preferred = [replace(each, priority=True) if each.id in keymap else each for each in bindings]
            self._bindings.key_to_bindings[key] = preferred

    def compose(self) -> ComposeResult:
        """Everything is in the view."""
        yield self._view

    def on_mount(self) -> None:
        """Land in the prompt and listen to the engine."""
        self._prompt.focus()
        if not self.ansi_color:
            wanted = self._options.theme
            self.theme = self.fitting_theme(wanted if wanted in self.available_themes else self.theme)
        self._shown_theme = self.theme
        self.theme_changed_signal.subscribe(self, self._theme_chosen)
        self.screen_change_signal.subscribe(self, self._screen_changed, immediate=True)
        self._top_line.say("loading")
        self._engine.on_event = self._mail.put
        self.set_interval(KEEP_S, self._open_chat.keep)

    async def on_ready(self) -> None:
        """Go on with the chat that was asked for."""
        self._open_chat.tell_of_store()
        for notice in self._options.notices:
            self.notify(notice, severity="warning", timeout=20)
        if self._options.chat_id is not None:
            await self._open_chat.open(self._options.chat_id)

    def on_unmount(self) -> None:
        """Stop listening, and keep what a running reply has."""
        self._engine.on_event = None
        with suppress(StoreError):
            for event in self._mail.fetch():
                self._dialogue.keep(event)
            self._conversation.end("interrupted")

    def on_resize(self, event: events.Resize) -> None:
        """Share the window out anew."""
        self._view.fit(*event.size, self._wants_panel)

    # The engine

    async def on_engine_reported(self) -> None:
        """Fetch what was reported, and let the rounds that come next wait a little."""
        if not self.screen_stack:
            return  # The chat is being left; what a running reply has is kept in on_unmount.
        for event in self._mail.fetch():
            if isinstance(event, Round) and not self._mail.is_resting:
                self._mail.is_resting = True
                self.set_timer(ROUNDS_S, self._end_rest)
            await self._hear(event)

    async def _end_rest(self) -> None:
        self._mail.is_resting = False
        if self._mail.has_events:
            await self.on_engine_reported()

    async def _hear(self, event: Event) -> None:
        """Events about the pair; those about a reply go on to the dialogue."""
        self._view.has_news = True
        match event:
            case Loading() as loading:
                self._pairs.loading(loading)
                self.refresh_bindings()
            case Notice(message=words):
                self.notify(words)
            case Ready() as ready:
                self._pair_loaded(ready)
            case Failed(id=None, message=words):
                if self._comparing is not None:
                    self._comparing.hear(event)
                await self._dialogue.break_off(f"The model could not be loaded. {words}", "not loaded")
                self._pairs.broke_off()
            case Counted(id=id, tokens=tokens):
                self._composer.counted(id, tokens)
            case about_reply:
                if self._comparing is not None:
                    self._comparing.hear(about_reply)
                await self._dialogue.hear(about_reply)
                if isinstance(about_reply, Died):
                    self._pairs.broke_off()

    def _pair_loaded(self, ready: Ready) -> None:
        if news := news_of_refusal(ready, self._dialogue.loaded):
            self.notify(news, severity="warning", timeout=20)
        self._dialogue.loaded = ready
        self._pairs.loaded(ready)
        self._gauges.loaded(ready)
        self._top_line.say("waiting" if self._dialogue.is_running else "ready")
        self._composer.recount(ready.context_tokens)
        self.refresh_bindings()

    def _reply_began_or_ended(self) -> None:
        if self._dialogue.is_running:
            self._pairs.wanted()
        self._open_chat.show_title()
        self._open_chat.tell_of_store()
        self.refresh_bindings()

    # A message

    @on(Composer.Submitted)
    async def _send(self, event: Composer.Submitted) -> None:
        """Send a message. What cannot be kept comes back to the prompt."""
        if not self._composer.take(event.typed):
            return
        try:
            await (self._dialogue.ask_instead if event.typed.is_edit else self._dialogue.ask)(event.text)
        except StoreError as error:
            self._composer.give_back(event.typed)
            self.notify(str(error), severity="error")

    @on(Composer.Refused)
    def _refuse(self, event: Composer.Refused) -> None:
        self.notify(event.words, severity="warning")

    @on(Composer.CountWanted)
    def _count(self, event: Composer.CountWanted) -> None:
        # An engine that loads does not read yet, and a large text would wait for it here.
        if self._dialogue.loaded is not None:
            self._engine.count(event.id, cleaned(event.text))

    @on(Prompt.Commanded)
    async def _command(self, event: Prompt.Commanded) -> None:
        name, values = event.run.action, event.run.values
        if name == "edit":
            values = (*values, event.mentions)
        await self.run_action(("app", name, values) if values else name)

    @on(Prompt.WalkRequested)
    async def _walk(self, event: Prompt.WalkRequested) -> None:
        with storing(self.notify):
            if not self._prompt.is_waiting and self._open_chat.has_versions:
                await self._open_chat.walk(event.step)

    @on(Prompt.EditRequested)
    def action_edit_last(self) -> None:
        """Have the last message in the prompt, to send it changed."""
        if (last := self._dialogue.last_message()) is not None and not self._prompt.is_editing:
            self._composer.edit(last)

    def action_edit(self, text: str, mentioned: Sequence[str]) -> None:
        """Send a message in place of the last one. mentioned: the files that go with it."""
        if self._dialogue.last_message() is not None:
            self._composer.submit(Prompt.Submitted(text, mentioned, is_edit=True))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Stop is greyed out while there is nothing to stop; what is for the chat waits until it is on top."""
        if action in OF_THE_CHAT and len(self.screen_stack) > 1:
            return False
        if action == "stop" and not (self._is_answering or self._pairs.is_loading):
            return None
        return True

    @property
    def _is_answering(self) -> bool:
        """Whether a reply is running, or the message on its way that asks for one."""
        return self._dialogue.is_running or self._composer.is_sending

    def action_send(self) -> None:
        """Send what is in the prompt."""
        # A prompt that has to wait says so itself.
        if self._prompt.is_waiting or self._dialogue.is_free():
            self._prompt.action_send()

    def action_newline(self) -> None:
        """Break the line in the prompt."""
        self._prompt.action_newline()

    def action_stop(self) -> None:
        """End the reply at its next round; what has been written stays. Without one, stop loading.

        A message that has not gone yet does not go.
        """
        if self._composer.call_back():
            return
        if not self._pairs.is_loading:
            self._dialogue.stop()
        elif self._dialogue.is_running:
            self._dialogue.abandon()
        else:
            self._pairs.stop_loading()
            self.refresh_bindings()

    def action_interrupt(self) -> None:
        """Copy a selection, else stop, else empty the prompt; twice in a row quits."""
        selected = self.screen.get_selected_text() or self._prompt.selected_text
        if selected:
            self._copy(selected, "the selection")
            self.screen.clear_selection()
            self._prompt.move_cursor(self._prompt.cursor_location)
            return
        if monotonic() - self._interrupted_s < QUIT_WINDOW_S:
            self.exit(return_code=INTERRUPTED)
            return
        self._interrupted_s = monotonic()
        if self._is_answering:
            self.action_stop()
            said = "Stopping. "
        elif self._prompt.is_editing:
            self._prompt.discard()
            said = "Your last message stays as it is; up brings back what you made of it. "
        elif self._prompt.text:
            self._prompt.discard()
            said = "Prompt emptied; up brings it back. "
        else:
            said = ""
        self.notify(f"{said}Press {key_in(self, 'interrupt')} again to quit.", timeout=QUIT_WINDOW_S)

    def action_toggle_drafting(self) -> None:
        """Between off and the last draft length, also for the running reply."""
        self.action_set_drafting("on" if not self._gauges.draft_length else 0)

    def action_set_drafting(self, setting: DraftSetting | Literal["on"]) -> None:
        """Draft so many tokens per round, also in the running reply; on: as many as before it was off."""
        if not self._gauges.has_drafter:
            self.notify(why_there_is_nothing(self._dialogue.loaded, "switch on"))
            return
        with storing(self.notify):
            self._replies.set_drafting(setting)
        self._view.show_gauges_now()

    async def action_regenerate(self) -> None:
        """Ask for the last reply once more."""
        await self._dialogue.regenerate()

    async def action_go_on(self) -> None:
        """Let a reply that was stopped go on where it is."""
        await self._dialogue.go_on()

    async def action_walk(self, step: int) -> None:
        """Show another version of this chat; -1: the one before."""
        await self._open_chat.walk(step)

    def action_ab(self, setting: DraftSetting | None = None) -> None:
        """Replay the last prompt without and with drafting (None: as it is set); the chat stays as it is."""
        if not self._dialogue.is_free():
            return
        if self._conversation.last is None:
            self.notify("There is no prompt to replay yet: send a message first.")
        elif not self._gauges.has_drafter:
            self.notify(why_there_is_nothing(self._dialogue.loaded, "compare"))
        else:
            asked = questions(
                self._conversation.to_send(),
                self._dialogue.options,
                setting or self._replies.draft_length_when_on,
                (self._dialogue.new_id(), self._dialogue.new_id()),
            )
            self._dialogue.is_comparing = True
            comparison = AbScreen(self._engine, Comparison(asked), self._pairs.pair.title)
            self.push_screen(comparison, self._compared)

    def _compared(self, _: None) -> None:
        self._dialogue.is_comparing = False

    @property
    def _comparing(self) -> AbScreen | None:
        return next((screen for screen in self.screen_stack if isinstance(screen, AbScreen)), None)

    # How replies are made

    def action_params(self) -> None:
        """The settings of this chat."""
        params = self._replies.params
        self.push_screen(ParamsScreen(params.values, params.usual), self._change)

    def _change(self, values: Mapping[str, Any] | None) -> None:
        if values is not None:
            with storing(self.notify):
                self.notify(self._replies.change(values))
            self._view.show_gauges_now()

    def action_toggle_thinking(self) -> None:
        """Let the model think before it answers, or not."""
        self.action_set_thinking(not self._dialogue.options.is_thinking)

    def action_set_thinking(self, is_thinking: bool) -> None:
        """The same, said outright."""
        self._change({"think": is_thinking})

    def action_tell_system(self) -> None:
        """Say what stands ahead of the conversation."""
        self.notify(system_in_passing(self._conversation.system, key_in(self, "params")))

    def action_set_system(self, text: str) -> None:
        """Have `text` stand ahead of the conversation; off: nothing."""
        self._change({"system": None if text == "off" else text})

    def action_tell_sampling(self) -> None:
        """Say how tokens are drawn."""
        self.notify(sampling_in_words(self._dialogue.options.sampling))

    def action_set_temperature(self, temperature: float | None) -> None:
        """Draw so from the next message on; None: as the model's folder says."""
        self._change({"temp": temperature})

    def action_set_seed(self, seed: int | None) -> None:
        """The same seed, the same reply; None: a new one every time."""
        self._change({"seed": seed})

    # The chats

    def action_chats(self, words: str = "") -> None:
        """List the chats that are kept, those that hold `words`."""
        if self._dialogue.is_free():
            self.push_screen(ChatsScreen(self._store, words), self._chat_chosen)

    async def _chat_chosen(self, chosen: tuple[int, str] | None) -> None:
        if chosen is not None:
            await self._open_chat.open(*chosen)

    @on(ChatsScreen.Deleted)
    async def _chat_deleted(self, event: ChatsScreen.Deleted) -> None:
        await self._open_chat.was_deleted(event.chat_id)

    @on(ChatsScreen.Restored)
    async def _chat_restored(self, event: ChatsScreen.Restored) -> None:
        await self._open_chat.came_back(event.chat_id)

    @on(ChatsScreen.Renamed)
    def _chat_renamed(self, event: ChatsScreen.Renamed) -> None:
        self._open_chat.was_renamed(event.chat)

    def action_new_chat(self) -> None:
        """Begin a new conversation; what stands in the prompt stays, and what has not gone yet comes back."""
        # In its turn among what is typed: a message that is sent after it is one of the new chat.
        self._prompt.call_later(self._begin_chat)

    async def _begin_chat(self) -> None:
        self._composer.call_back(leaves_chat=True)
        await self._open_chat.begin()

    def action_rename(self, title: str) -> None:
        """Give this chat another title."""
        self._open_chat.rename(title)

    async def action_delete_chat(self) -> None:
        """Take this chat out of sight, and begin a new one."""
        await self._open_chat.delete()

    async def action_undo_delete(self) -> None:
        """Bring back the chat that was deleted last."""
        await self._open_chat.undo_delete()

    def action_export(self, name: str | None = None) -> None:
        """Write this chat to a file."""
        self._open_chat.export(name)

    async def action_import(self, name: str) -> None:
        """Add the chats of a file, and show the last of them."""
        await self._open_chat.import_(name)

    # The pair

    def action_models(self) -> None:
        """List the models: switch to one, or fetch one."""
        if not self._dialogue.is_free():
            return
        try:
            catalog = own_and_bundled()
        except SlipstreamError as error:
            self.notify(str(error), severity="error")
            return
        loaded = self._dialogue.loaded
        machine = read_machine(loaded.working_set_bytes if loaded else None)
        self.push_screen(
            ModelsScreen(catalog, cache_folder(), machine, self._pairs.pair.title), self._model_listed
        )

    def action_switch_model(self, name: str) -> None:
        """Go on with another pair."""
        if self._dialogue.is_free():
            self._model_chosen(name)

    def _model_listed(self, name: str | None) -> None:
        # The list has asked already where there is no room.
        self._model_chosen(name, is_oversized=True)

    def _model_chosen(self, name: str | None, is_oversized: bool = False) -> None:
        if name is not None and self._pairs.choose(name, is_oversized):
            self._gauges.forget_pair()
            self._view.has_news = True
            self.refresh_bindings()

    # The screen

    def action_copy_answer(self) -> None:
        """Put the code block in focus on the clipboard, else the last answer."""
        if isinstance(self.focused, CodeBlock):
            self._copy(self.focused.code, "the code block")
        else:
            self.action_copy(is_code=False)

    def action_copy(self, is_code: bool) -> None:
        """Put the last answer on the clipboard, or its last code block."""
        answer = self._conversation.last_answer
        blocks = code_blocks(answer or "")
        if answer is None:
            self.notify("There is no answer to copy yet.")
        elif not is_code:
            self._copy(answer, "the last answer")
        elif blocks:
            self._copy(blocks[-1], "the last code block")
        else:
            self.notify("There is no code block in the last answer.")

    @on(CodeBlock.CopyRequested)
    def _copy_code(self, event: CodeBlock.CopyRequested) -> None:
        self._copy(event.code, "the code block")

    @on(CodeBlock.LeaveRequested)
    def _leave_code(self, event: CodeBlock.LeaveRequested) -> None:
        self._prompt.focus()
        self._prompt.insert(event.typed)

    def action_toggle_thoughts(self) -> None:
        """Fold or unfold the thoughts of all replies, as the newest ones are not."""
        if not self._transcript.toggle_thoughts():
            is_thinking = self._dialogue.options.is_thinking
            more = "." if is_thinking else "; /think on lets the model think first."
            self.notify(f"There are no thoughts to show in the newest replies{more}")

    def action_toggle_tint(self) -> None:
        """Show what of the replies was drafted, or the Markdown again."""
        if not self._view.toggle_tint():
            self.notify("What was drafted of these replies was not kept; those to come are tinted.")

    def action_toggle_panel(self) -> None:
        """Show or hide the gauge panel, whatever the width suggests."""
        width, height = self.size
        if not layout(width, height, wants_panel=True).has_panel:
            words = f"The gauge panel needs a window of {PANEL_NEEDS_COLUMNS} columns and {PANEL_NEEDS_ROWS} rows"
            self.notify(f"{words}; this one has {width} and {height}.")
            return
        self._wants_panel = not self._view.has_panel
        self._options.remember("has_panel", self._wants_panel, self.notify)
        self._view.fit(*self.size, self._wants_panel)

    def action_help(self) -> None:
        """Explain keys and gauges."""
        if not isinstance(self.screen, TableScreen):
            self.push_screen(help_screen(self.own_keys))

    def action_paths(self) -> None:
        """Say where everything is kept."""
        kept = {name: str(path) for name, path in places.everything().items()}
        self.push_screen(TableScreen([("Where everything is kept", kept.items())]))

    def _screen_changed(self, screen: Screen[object]) -> None:
        """What opens is not covered by what was told before."""
        if screen.is_modal:
            self.clear_notifications()
            # Textual clears the one on top only, and of one that comes back it leaves the room that they took.
            for below in self.screen_stack[:-1]:
                below.query(ToastHolder).remove()

    def _theme_chosen(self, theme: Theme) -> None:
        if theme.name != self._shown_theme:
            self._shown_theme = theme.name
            self._options.remember("theme", theme.name, self.notify)

    def action_set_theme(self, name: str) -> None:
        """Other colours."""
        self.theme = name

    def _offered(self, command: Command) -> Sequence[str]:
        """What may follow a command on this machine."""
        match command.argument and command.argument.offers:
            case "themes":
                return sorted(self.available_themes)
            case "models":
                return self._model_names
        return ()

    @cached_property
    def _model_names(self) -> Sequence[str]:
        try:
            return sorted(own_and_bundled().entries)
        except SlipstreamError:
            return ()

    def action_attach(self, name: str) -> None:
        """Mention a file in the prompt."""
        self._prompt.begin(f"{written(name)} ")

    def action_editor(self) -> None:
        """The prompt in the person's own editor."""
        self._composer.write_in_editor()

    def action_screenshot_soon(self) -> None:
        """Save the screen as an SVG file in the current folder, once the palette is gone from it."""
        self.set_timer(0.1, self._keep_picture)

    def _keep_picture(self) -> None:
        try:
            self.notify(f"Saved {self.save_screenshot()}")
        except OSError as error:
            words = f"The screenshot cannot be written in this folder: {error.strerror}."
            self.notify(f"{words} Start Slipstream in another one.", severity="error")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every command by its title."""
        keys = changed_keys(self.own_keys)
        for command in COMMANDS:
            run: Callable[[], object] = partial(self.run_action, command.action)
            if command.argument and command.argument.is_required:
                run = partial(self._prompt.begin, f"/{command.slash} ")
            yield SystemCommand(command.title, keys.get(command.action, command.hint), run)

    def _copy(self, text: str, what: str) -> None:
        self.copy_to_clipboard(text)
        self.notify(f"Copied {what} ({len(text):,} character{'s' * (len(text) != 1)}).")
