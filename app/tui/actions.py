"""The actions that keys, slash commands and the palette run in the chat.

Most only call the Dialogue (replies and settings), CurrentChat (stored chats) or a widget.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from textual import on
from textual.screen import Screen

from app.core.attachments import mention_of
from app.core.chat_options import ChatOptions
from app.core.chat_settings import describe_sampling, describe_system_prompt_briefly
from app.core.current_chat import CurrentChat
from app.core.current_pair import NO_REPORT
from app.core.dialogue import Dialogue
from app.core.downloads import Downloads
from app.core.models_list import own_and_bundled
from app.core.pair_choice import Choose, absolute
from app.core.requests import NO_SERVER_RUNS, requests_beside
from app.report.contents import TerminalFacts
from app.report.making import REPORT_FILE, reported_pair
from app.store.chat_store import ChatStore
from app.system import places
from app.system.terminal_bytes import variables_in
from app.tui.chat_view import ChatView
from app.tui.keys import key_in, own_keys
from app.tui.layout import PANEL_NEEDS_COLUMNS, PANEL_NEEDS_ROWS, layout
from app.tui.prompt.composer import Composer
from app.tui.prompt.prompt import Prompt
from app.tui.screens.chats import ChatsScreen
from app.tui.screens.comparison import ComparisonScreen
from app.tui.screens.help import help_screen
from app.tui.screens.models import ModelsScreen, PullReported
from app.tui.screens.params import ParamsScreen
from app.tui.screens.report import ReportScreen
from app.tui.screens.requests import RequestsScreen
from app.tui.screens.served_models import ServedModelsScreen
from app.tui.screens.table import TableScreen
from app.tui.transcript.code_block import CodeBlock
from app.tui.transcript.markdown import code_blocks
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import DraftSetting, Event
from models.hub_cache import cache_folder
from models.machine import read_machine
from models.paths import expanded
from models.pull import PullFailed, PullFinished


class ChatActions(Screen[None]):
    """The actions of the chat's screen. ChatScreen creates what they use."""

    dialogue: Dialogue
    chat: CurrentChat
    view: ChatView
    composer: Composer
    downloads: Downloads
    options: ChatOptions
    store: ChatStore
    choose: Choose
    _engine: EngineHandle

    wants_panel: bool | None
    """Whether the person wants the gauge panel; None: by the width of the window."""

    @property
    def prompt(self) -> Prompt:
        return self.composer.prompt

    # Messages and replies

    def action_send(self) -> None:
        self.prompt.action_send()

    def action_newline(self) -> None:
        self.prompt.action_newline()

    def action_stop(self) -> None:
        """Stop what runs: a message whose files are being read, the reply, or loading."""
        if not self.composer.call_back():
            self.dialogue.stop()

    async def action_regenerate(self) -> None:
        await self.dialogue.regenerate()

    async def action_go_on(self) -> None:
        await self.dialogue.go_on()

    @on(Prompt.EditRequested)
    def action_edit_last(self) -> None:
        """Put the last message into the prompt, to edit it and send it again."""
        if (last := self.dialogue.last_message()) is not None and not self.prompt.is_editing:
            self.composer.edit(last)

    def action_edit(self, text: str, mentioned: Sequence[str]) -> None:
        """Send a message in place of the last one. mentioned: the files sent with it."""
        if self.dialogue.last_message() is not None:
            self.composer.submit(Prompt.Submitted(text, mentioned, is_edit=True))

    def action_attach(self, name: str) -> None:
        """Mention a file in the prompt."""
        self.prompt.begin(f"{mention_of(name)} ")

    def action_editor(self) -> None:
        """Open the prompt in the person's own editor."""
        self.composer.write_in_editor()

    # How replies are made

    def action_toggle_drafting(self) -> None:
        """Turn drafting off, or on with the last draft length; also during a reply."""
        self.action_set_drafting("on" if not self.dialogue.settings.draft_length else 0)

    def action_set_drafting(self, setting: DraftSetting | Literal["on"]) -> None:
        """Draft this many tokens per round; on: as many as before drafting was turned off."""
        if self.dialogue.set_drafting(setting):
            self.view.show_gauges_now()

    def action_params(self) -> None:
        settings = self.dialogue.settings.chat
        self.app.push_screen(ParamsScreen(settings.values, settings.defaults, settings.of_this_run), self._change)

    def action_toggle_thinking(self) -> None:
        self.action_set_thinking(not self.dialogue.settings.options.is_thinking)

    def action_set_thinking(self, is_thinking: bool) -> None:
        self._change({"think": is_thinking})

    def action_show_system(self) -> None:
        system = self.dialogue.settings.options.system
        self.app.notify(describe_system_prompt_briefly(system, key_in(self.app, "params")))

    def action_set_system(self, text: str) -> None:
        """Set the system prompt; off: remove it."""
        self._change({"system": None if text == "off" else text})

    def action_show_schema(self) -> None:
        self.app.notify(self.dialogue.settings.describe_schema())

    def action_set_schema(self, file: str) -> None:
        """Hold the replies to the JSON schema in a file; off: to none."""
        self.dialogue.use_schema(file)
        self.view.show_gauges_now()

    def action_show_sampling(self) -> None:
        self.app.notify(describe_sampling(self.dialogue.settings.options.sampling))

    def action_set_temperature(self, temperature: float | None) -> None:
        """Set the temperature; None: the model's own."""
        self._change({"temp": temperature})

    def action_set_seed(self, seed: int | None) -> None:
        """Set the seed; None: a new one for every reply."""
        self._change({"seed": seed})

    def _change(self, values: Mapping[str, Any] | None) -> None:
        if values is not None:
            self.dialogue.change_settings(values)
            self.view.show_gauges_now()

    def action_ab(self, setting: DraftSetting | None = None) -> None:
        """Replay the last message without and with drafting, side by side; None: drafting as in this chat."""
        if (comparison := self.dialogue.compare(setting)) is not None:
            screen = ComparisonScreen(comparison, self.dialogue.pair.title)
            self.app.push_screen(screen, lambda _: self.dialogue.end_comparison())

    # Chats

    def action_chats(self, words: str = "") -> None:
        """List the stored chats, or those that contain `words`. A running reply goes on meanwhile."""
        chat = self.dialogue.conversation.chat
        self.app.push_screen(ChatsScreen(self.store, words, chat.id if chat else None), self._open)

    async def _open(self, chosen: tuple[int, str] | None) -> None:
        if chosen is not None:
            self.composer.call_back(leaves_chat=True)
            await self.chat.open(*chosen)

    def action_new_chat(self) -> None:
        """Start a new chat, which stops a running reply.

        The text in the prompt stays, and a message whose files are being read comes back.
        """
        # Through the prompt's queue, in the order of typing: a message sent after it belongs to the new chat.
        self.prompt.call_later(self._begin_chat)

    async def _begin_chat(self) -> None:
        self.composer.call_back(leaves_chat=True)
        await self.chat.begin()

    async def action_walk(self, step: int) -> None:
        """Show another version of this chat; -1: the previous one."""
        await self.chat.walk(step)

    def action_rename(self, title: str) -> None:
        self.chat.rename(title)

    async def action_delete_chat(self) -> None:
        await self.chat.delete()

    async def action_undo_delete(self) -> None:
        await self.chat.undo_delete()

    def action_export(self, name: str | None = None) -> None:
        self.chat.export(name)

    async def action_import(self, name: str) -> None:
        await self.chat.import_file(name)

    # Models

    def action_models(self) -> None:
        """List the models, to switch to one or pull one."""
        if not self.dialogue.is_free():
            return
        pair = self.dialogue.pair
        if pair.choice.is_served and not pair.choice.is_attached:
            self._list_served_models()
            return
        try:
            catalog = own_and_bundled()
        except SlipstreamError as error:
            self.app.notify(str(error), severity="error")
            return
        machine = read_machine(pair.ready.working_set_bytes if pair.ready else None)
        # Before it returns a model that is too large, the list asks whether to load it anyway.
        self.app.push_screen(
            ModelsScreen(catalog, cache_folder(), machine, pair.model, self.downloads),
            lambda name: self._switch(name, is_oversized=True) if name else None,
        )

    def _list_served_models(self) -> None:
        """List the models of the server that makes the replies."""
        pair, ready = self.dialogue.pair, self.dialogue.pair.ready
        if ready is None or ready.server is None:
            self.app.notify(f"{pair.choice.title} has not said yet which models it has.")
        elif not ready.server.models:
            self.app.notify(f"{pair.choice.title} does not list its models. /model NAME asks for one.")
        else:
            self.app.push_screen(
                ServedModelsScreen(ready.server.models, ready.target),
                lambda name: self._switch(name, is_oversized=False) if name else None,
            )

    @on(PullReported)
    def _pull_reported(self, report: PullReported) -> None:
        """Show how far a pull is: in the list if it is open, else when the pull has ended."""
        name, event = self.downloads.name, report.event
        if not self.downloads.hear(report.number, event):
            return
        for screen in self.app.screen_stack:
            if isinstance(screen, ModelsScreen):
                screen.pull_changed(event, name)
                return
        if isinstance(event, PullFinished):
            self.app.notify(f"{name} is here. Press {key_in(self.app, 'model')} to switch to it.", timeout=20)
        elif isinstance(event, PullFailed):
            self.app.notify(f"{name} was not pulled. {event.message}", severity="error", timeout=20)

    def action_switch_model(self, name: str) -> None:
        if self.dialogue.is_free():
            self._switch(name, is_oversized=False)

    def _switch(self, name: str, *, is_oversized: bool) -> None:
        if name == self.dialogue.pair.model:
            return
        try:
            choice = self.choose(name, is_oversized)
        except SlipstreamError as error:
            key = key_in(self.app, "model")
            message = str(error).replace("`slipstream models list`", key)
            hint = "" if key in message else f" Press {key} for the list of models."
            self.app.notify(message + hint, severity="error")
            return
        is_folder = not choice.is_served and choice.load.target == absolute(name)
        self.dialogue.switch_pair(choice, absolute(name) if is_folder else name)
        self.view.show_gauges_now()

    def action_requests(self) -> None:
        """Show what a server answers beside this chat."""
        if (requests := requests_beside(self.dialogue.pair)) is None:
            self.app.notify(NO_SERVER_RUNS)
        else:
            self.app.push_screen(RequestsScreen(requests))

    # The screen

    def copy_answer(self, *, is_code: bool = False) -> None:
        """Put the last answer on the clipboard, or its last code block."""
        answer = self.dialogue.conversation.last_answer
        blocks = code_blocks(answer or "")
        if answer is None:
            self.app.notify("There is no answer to copy yet.")
        elif not is_code:
            self.copy(answer, "the last answer")
        elif blocks:
            self.copy(blocks[-1], "the last code block")
        else:
            self.app.notify("There is no code block in the last answer.")

    def action_copy(self, is_code: bool) -> None:
        self.copy_answer(is_code=is_code)

    @on(CodeBlock.CopyRequested)
    def _copy_code(self, event: CodeBlock.CopyRequested) -> None:
        self.copy(event.code, "the code block")

    def copy(self, text: str, what: str) -> None:
        """Put a text on the clipboard, and tell the person. what: as in "the last answer"."""
        self.app.copy_to_clipboard(text)
        self.app.notify(f"Copied {what} ({len(text):,} character{'s' * (len(text) != 1)}).")

    def action_toggle_thoughts(self) -> None:
        """Fold or unfold the thoughts of all replies."""
        if not self.view.transcript.toggle_thoughts():
            more = "" if self.dialogue.settings.options.is_thinking else " /think on lets the model think first."
            self.app.notify(f"The latest replies have no thoughts to show.{more}")

    def action_toggle_tint(self) -> None:
        """Colour the drafted words of the replies, or show the formatted text again."""
        if not self.view.toggle_tint():
            self.app.notify("It is not known what was drafted in these replies. New replies will be coloured.")

    def action_toggle_figures(self) -> None:
        """Show all figures below the replies, or only the most important."""
        self.view.transcript.toggle_figures()

    def action_toggle_panel(self) -> None:
        """Show or hide the gauge panel, whatever the width suggests."""
        width, height = self.size
        if not layout(width, height, wants_panel=True).has_panel:
            self.app.notify(
                f"The gauge panel needs a window of {PANEL_NEEDS_COLUMNS} columns and {PANEL_NEEDS_ROWS} rows; "
                f"this one has {width} and {height}."
            )
            return
        self.wants_panel = not self.view.has_panel
        self.options.remember("has_panel", self.wants_panel, self.app.notify)
        self.view.fit(width, height, self.wants_panel)

    def action_help(self) -> None:
        self.app.push_screen(help_screen(own_keys(self.app)))

    def action_report(self, name: str | None = None) -> None:
        """Measure this machine, and show a report about it, to be written to a file."""
        if not self.dialogue.is_free():
            return
        pair = self.dialogue.pair
        if pair.ready is None:
            self.app.notify("The model is not loaded yet. Ask for the report again when it is.")
            return
        if pair.ready.server is not None:
            self.app.notify(NO_REPORT)
            return
        try:
            path = expanded(name or REPORT_FILE).absolute()
        except SlipstreamError as error:
            self.app.notify(str(error), severity="error")
            return
        width, height = self.app.size
        terminal = TerminalFacts(size=f"{width} x {height}", variables=variables_in(os.environ))
        reported = reported_pair(pair.choice.title, pair.ready)
        self.app.push_screen(ReportScreen(self._engine, reported, self.options.examine, terminal, path))

    def tell_report(self, event: Event) -> None:
        """Hand an event of the engine to the report that is open, if one is."""
        for screen in self.app.screen_stack:
            if isinstance(screen, ReportScreen):
                screen.hear(event)

    def action_paths(self) -> None:
        paths = {name: str(path) for name, path in places.everything().items()}
        self.app.push_screen(TableScreen([("Where files are kept", paths.items())]))
