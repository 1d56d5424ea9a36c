"""The app around the chat's screen: theme, palette, interrupt and quit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic

from textual import on
from textual.app import SystemCommand
from textual.screen import Screen
from textual.theme import Theme, ThemeProvider
from textual.widgets._toast import ToastHolder

from app.core.chat_options import ChatOptions
from app.core.commands import COMMANDS, hint
from app.core.pair_choice import Choose, PairChoice
from app.core.unsaved import what_is_unsaved
from app.settings.keys import APP_KEYS, keymap_of
from app.store.chat_store import ChatStore
from app.system.exit_codes import INTERRUPTED
from app.tui.bars.key_line import KeyLine
from app.tui.chat_screen import ChatScreen
from app.tui.keys import bindings, key_in, prefer
from app.tui.layout import SMALL
from app.tui.screens.chats import ChatsScreen
from app.tui.screens.palette import Palette
from app.tui.screens.unsaved import UnsavedScreen
from app.tui.terminal.safe_app import SafeApp
from app.tui.transcript.code_block import CodeBlock
from mlx_engine.client import EngineHandle
from mlx_engine.files.atomic import replace_file

QUIT_WINDOW_S = 2.0

WINDOW_HEIGHTS = [(0, "-low"), (8, "-middle"), (SMALL[1] + 1, "-tall")]
"""The rows from which a window has each class. In a low one, everything else makes room for an open list."""
WINDOW_WIDTHS = [(0, "-narrow"), (62, "-broad")]
"""The columns from which a window has each class. A narrow one has no room beside a notification."""


class ChatApp(SafeApp):
    """The caller starts the engine before `run` and closes it afterwards. `return_code` is the exit code."""

    CSS_PATH = Path(__file__).with_name("chat_app.tcss")
    TITLE = "Slipstream"
    BINDINGS = bindings(APP_KEYS)
    VERTICAL_BREAKPOINTS = WINDOW_HEIGHTS
    HORIZONTAL_BREAKPOINTS = WINDOW_WIDTHS

    def __init__(
        self, engine: EngineHandle, pair: PairChoice, choose: Choose, options: ChatOptions, store: ChatStore
    ) -> None:
        """pair: what the engine loads."""
        super().__init__(options.log_path)
        self._options = options
        self._store = store
        self.own_keys = keymap_of(options.settings.send_key, options.settings.keys or {})
        self.set_keymap(self.own_keys)
        prefer(self._bindings, self.own_keys)
        self._shown_theme = self.theme
        self._interrupted_s = float("-inf")
        self.chat_screen = ChatScreen(engine, pair, choose, options, store, self.own_keys)

    def get_default_screen(self) -> Screen[None]:
        return self.chat_screen

    def on_mount(self) -> None:
        """Set the theme, and remember it when the person chooses another one."""
        if not self.ansi_color:
            chosen = self._options.settings.theme
            self.theme = self.fitting_theme(chosen if chosen in self.available_themes else self.theme)
            if chosen is None:
                self.ask_background(self._background_known)
        self._shown_theme = self.theme
        self.theme_changed_signal.subscribe(self, self._theme_chosen)
        self.screen_change_signal.subscribe(self, self._screen_changed, immediate=True)

    def on_unmount(self) -> None:
        self.chat_screen.leave()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The palette has the commands of the chat, so it opens only there."""
        return action != "command_palette" or self.screen is self.chat_screen

    def action_interrupt(self) -> None:
        """Copy a selection, else stop the reply, else empty the prompt; twice in a row quits."""
        prompt = self.chat_screen.prompt
        selected = self.screen.get_selected_text() or prompt.selected_text
        if selected:
            self.chat_screen.copy(selected, "the selection")
            self.screen.clear_selection()
            prompt.move_cursor(prompt.cursor_location)
            return
        if monotonic() - self._interrupted_s < QUIT_WINDOW_S:
            self._quit(INTERRUPTED)
            return
        self._interrupted_s = monotonic()
        if self.chat_screen.dialogue.phase.is_busy:
            self.chat_screen.action_stop()
            done = "Stopping. "
        elif prompt.is_editing:
            prompt.discard()
            done = "Your last message stays as it was. Press up to get your changes back. "
        elif prompt.text:
            prompt.discard()
            done = "Prompt emptied. Press up to get the text back. "
        else:
            done = ""
        self.notify(f"{done}Press {key_in(self, 'interrupt')} again to quit.", timeout=QUIT_WINDOW_S)

    async def action_quit(self) -> None:
        self._quit(0)

    def _quit(self, return_code: int) -> None:
        """Quit; if something could not be saved, ask first where to keep it. Asked to quit again, do."""
        self.chat_screen.chat.save()
        unsaved = what_is_unsaved(self._store)
        if not unsaved or any(isinstance(screen, UnsavedScreen) for screen in self.screen_stack):
            self.exit(return_code=return_code)
            return

        def asked(is_over: bool | None) -> None:
            if is_over:
                self.exit(return_code=return_code)

        self.push_screen(UnsavedScreen(self._store, unsaved, key_in(self, "quit")), asked)

    def action_copy_answer(self) -> None:
        """Put the code block in focus on the clipboard, else the last answer."""
        if isinstance(self.focused, CodeBlock):
            self.chat_screen.copy(self.focused.code, "the code block")
        else:
            self.chat_screen.copy_answer()

    def action_set_theme(self, name: str) -> None:
        self.theme = name

    def action_screenshot_soon(self) -> None:
        """Save the screen as an SVG file in the current folder, once the palette has closed."""
        self.set_timer(0.1, self._save_screenshot)

    def action_command_palette(self) -> None:
        self.push_screen(Palette())

    def search_themes(self) -> None:
        self.push_screen(Palette([ThemeProvider], placeholder="Search for themes"))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        for command in COMMANDS:
            run: Callable[[], object] = partial(self.chat_screen.run_command, command.action)
            if command.argument and command.argument.is_required:
                run = partial(self.chat_screen.prompt.begin, f"/{command.slash} ")
            yield SystemCommand(command.title, hint(command, self.own_keys), run)

    @on(ChatsScreen.Deleted)
    async def _chat_deleted(self, event: ChatsScreen.Deleted) -> None:
        await self.chat_screen.chat.was_deleted(event.chat_id)

    @on(ChatsScreen.Restored)
    async def _chat_restored(self, event: ChatsScreen.Restored) -> None:
        await self.chat_screen.chat.was_restored(event.chat_id)

    @on(ChatsScreen.Renamed)
    def _chat_renamed(self, event: ChatsScreen.Renamed) -> None:
        self.chat_screen.chat.was_renamed(event.chat)

    def _save_screenshot(self) -> None:
        try:
            path = Path(self._screenshot_name()).absolute()
            replace_file(path, self.export_screenshot())
            self.notify(f"Saved {path}")
        except OSError as error:
            self.notify(
                f"The screenshot cannot be saved in this folder: {error.strerror}. "
                "Start Slipstream in another folder.",
                severity="error",
            )

    def _screenshot_name(self) -> str:
        return f"{self.TITLE}_{datetime.now():%Y-%m-%d_%H.%M.%S.%f}.svg"

    def _screen_changed(self, screen: Screen[object]) -> None:
        """Clear older notifications when a screen opens, so that they do not cover it, and show its keys."""
        if screen.is_modal:
            self.clear_notifications()
            # Textual clears only those of the screen on top, and keeps their space on the others.
            for below in self.screen_stack[:-1]:
                below.query(ToastHolder).remove()
            self.call_next(self._show_keys, screen)

    async def _show_keys(self, screen: Screen[object]) -> None:
        """Give a list or dialog a key line of its own."""
        if screen.is_attached and not screen.query(KeyLine):
            await screen.mount(KeyLine())

    def _background_known(self, is_light: bool) -> None:
        """Use the light theme in a light terminal, unless the person has chosen one meanwhile."""
        if is_light and self.theme == self._shown_theme == self.fitting_theme("textual-dark"):
            self._shown_theme = self.fitting_theme("textual-light")
            self.theme = self._shown_theme

    def _theme_chosen(self, theme: Theme) -> None:
        if theme.name != self._shown_theme:
            self._shown_theme = theme.name
            self._options.remember("theme", theme.name, self.notify)
