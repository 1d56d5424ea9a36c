"""The terminal driver: restores the terminal however the chat ends.

Textual's own driver ends the app at the first byte that is not UTF-8, and a signal leaves the terminal raw.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from io import TextIOBase
from threading import Lock
from types import FrameType
from typing import Any

from textual import events
from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from app.tui.terminal.background import QUESTION, BackgroundAnswer
from app.tui.terminal.input_parser import PASTE_BEGINS, PASTE_ENDS, InputParser

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
READ_BYTES = 4096
POLL_S = 0.1
"""The longest wait for the input thread on quitting, and for the bytes that may follow a lone escape."""

_TEXTUALS_FLAGS = (
    linux_driver.KITTY_DISAMBIGUATE_ESCAPE_CODES
    | linux_driver.KITTY_REPORT_ALL_KEYS
    | linux_driver.KITTY_REPORT_ASSOCIATED_TEXT
)
TEXTUALS_KEYBOARD = f"\x1b[>{_TEXTUALS_FLAGS}u"
KEYBOARD = f"\x1b[>{_TEXTUALS_FLAGS | linux_driver.KITTY_REPORT_ALTERNATE_KEYS}u"
"""Asks for the kitty protocol, with each key's place in the US layout: ctrl keys work with any alphabet."""
KEYBOARD_AS_BEFORE = "\x1b[<u"
NEWLINES, QUITS = ("enter", "ctrl+j"), ("ctrl+c", "ctrl+q")


class TerminalOutput:
    """Writes to `file`, and ignores errors once the terminal is gone.

    An error would end Textual's writer thread; its queue would then fill up and block the app forever.
    """

    def __init__(self, file: TextIOBase) -> None:
        self._file = file
        self.fileno = file.fileno

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()


class PasteGuard:
    """Replaces escape characters inside a paste, which Textual would parse as keys, enter among them.

    Works on chunks that are split anywhere.
    """

    def __init__(self) -> None:
        self._is_inside = False
        self._partial_marker = ""
        """The start of a marker at the end of the last chunk. Outside a paste it was passed on already."""

    def give_up(self) -> None:
        """The end of the paste does not come: what follows are keys."""
        if self._is_inside:
            self._is_inside, self._partial_marker = False, ""

    def feed(self, text: str) -> str:
        """The next text for the parser. Inside a paste, a partial marker waits for the next chunk."""
        output: list[str] = []
        while text:
            marker = PASTE_ENDS if self._is_inside else PASTE_BEGINS
            text, passed_on = self._partial_marker + text, len(self._partial_marker)
            before, match, after = text.partition(marker)
            self._partial_marker = "" if match else _partial_match(marker, text)
            if self._is_inside:
                pasted = before if match else before.removesuffix(self._partial_marker)
                output += [pasted.replace("\x1b", "\N{SYMBOL FOR ESCAPE}"), match]
            else:
                output.append((before + match)[passed_on:])
            self._is_inside ^= bool(match)
            text = after
        return "".join(output)


def _partial_match(marker: str, text: str) -> str:
    """The longest proper prefix of `marker` that `text` ends with."""
    return next((marker[:size] for size in range(len(marker) - 1, 0, -1) if text.endswith(marker[:size])), "")


def loses_composed_keys(environment: Mapping[str, str]) -> bool:
    """Whether dead keys and input methods fail with the kitty protocol: in iTerm2, but not in tmux inside it."""
    is_iterm = environment.get("LC_TERMINAL") == "iTerm2" or environment.get("TERM_PROGRAM") == "iTerm.app"
    return is_iterm and not environment.get("TMUX")


def as_typed(early: Iterable[events.Key | events.Paste]) -> Iterator[events.Key | events.Paste]:
    """Keys and pastes from before the first frame as text: enter sends nothing that its writer has not seen.

    Keys that type nothing are left out, except those that quit, and so are line ends at the end.
    """
    newlines = 0
    for event in early:
        key = "" if isinstance(event, events.Paste) else event.key
        if key in NEWLINES:
            newlines += 1
        elif key in QUITS:
            yield event
        elif isinstance(event, events.Paste) or event.is_printable or key in ("backspace", "tab"):
            if newlines:
                yield events.Paste("\n" * newlines)
            newlines = 0
            yield events.Paste("\t") if key == "tab" else event


class TerminalDriver(LinuxDriver):
    """Shows bytes that are not UTF-8 as U+FFFD. SIGINT, SIGTERM, SIGHUP or a lost terminal end the app cleanly.

    What is typed or pasted before `release_input` waits for it.
    """

    _is_suspended = False
    _background: BackgroundAnswer | None = None
    _has_changed_keyboard = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._early: list[events.Key | events.Paste] | None = []
        """None: the app takes input."""
        self._early_lock = Lock()

    def release_input(self) -> None:
        """Hand over what was typed or pasted so far. Called when the first frame is drawn; does nothing later."""
        if self._early is None:
            return
        with self._early_lock:
            early, self._early = self._early, None
            for event in as_typed(early):
                super().process_message(event)

    def process_message(self, message: Message) -> None:
        """Called by the input thread for each event."""
        if isinstance(message, events.Key | events.Paste):
            with self._early_lock:
                if self._early is not None:
                    self._early.append(message)
                    return
        super().process_message(message)

    def write(self, data: str) -> None:
        """Textual's output, with another choice of the keyboard's protocol."""
        if data == TEXTUALS_KEYBOARD:
            self._has_changed_keyboard = not loses_composed_keys(os.environ)
            data = KEYBOARD if self._has_changed_keyboard else ""
        elif data == KEYBOARD_AS_BEFORE and not self._has_changed_keyboard:
            return
        super().write(data)

    def ask_background(self, tell: Callable[[bool], None]) -> None:
        """Ask whether the terminal's background is light. `tell` is called on the app's thread, or never."""
        self._background = BackgroundAnswer(lambda is_light: self._app.call_later(tell, is_light))
        self._background.expect()
        self.write(QUESTION)

    def start_application_mode(self) -> None:
        """Handle signals before the terminal's mode changes, so that none leaves it changed."""
        self._loop = asyncio.get_running_loop()
        for number in ENDING_SIGNALS:
            self._loop.add_signal_handler(number, partial(self._app.exit, return_code=128 + number))
        # Not through the loop, which would also react to a ctrl+c meant for an editor started from the chat.
        signal.signal(signal.SIGINT, self._interrupt)
        if isinstance(self._file, TextIOBase):
            self._file = TerminalOutput(self._file)  # type: ignore[assignment]
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def suspend_application_mode(self) -> None:
        self._is_suspended = True
        super().suspend_application_mode()

    def resume_application_mode(self) -> None:
        """Take the terminal over again. After a SIGSTOP, which sends no notice, its mode is restored first."""
        if not self._is_suspended:
            self.suspend_application_mode()
        self._is_suspended = False
        super().resume_application_mode()
        # The screen is empty now, and Textual draws nothing when the window's size is unchanged.
        self._app.call_later(self._app.refresh, layout=True)

    def _sigtstp_application(self, *signal_arguments: object) -> None:
        self._outside_of_writes(super()._sigtstp_application)

    def _sigcont_application(self, *signal_arguments: object) -> None:
        self._outside_of_writes(super()._sigcont_application)

    def _outside_of_writes(self, change_mode: Callable[[], None]) -> None:
        # A signal may arrive inside a write to the output queue; a write of its handler would then wait forever.
        # While an editor has the terminal (no automatic restart) nothing is written, and nothing may be put off.
        if self._loop.is_closed() or not self._auto_restart:
            change_mode()
        else:
            self._loop.call_soon_threadsafe(change_mode)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._loop.is_closed():
            raise KeyboardInterrupt
        self._loop.call_soon_threadsafe(partial(self._app.exit, return_code=128 + number))

    def run_input_thread(self) -> None:
        """Read, decode and post input until the app or the terminal ends."""
        parser = InputParser(self._debug)
        decode = getincrementaldecoder("utf-8")("replace").decode
        guard = PasteGuard()
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(POLL_S):
                    data = self._read()
                    if not data:
                        self._app.call_later(self._app.exit, return_code=128 + signal.SIGHUP)
                        return
                    if text := guard.feed(self._without_answer(decode(data))):
                        for message in parser.feed(text):
                            self.process_message(message)
                elif text := self._without_answer(""):
                    for message in parser.feed(guard.feed(text)):
                        self.process_message(message)
                was_pasting = parser.is_pasting
                for message in parser.tick():
                    self.process_message(message)
                if was_pasting and not parser.is_pasting:
                    guard.give_up()

    def _without_answer(self, text: str) -> str:
        """The input without the answer to `ask_background`. text: empty if nothing has come for a while."""
        if self._background is None:
            return text
        return self._background.feed(text) if text else self._background.flush()

    def _read(self) -> bytes:
        """Input bytes; empty at end of file or on a terminal error."""
        try:
            return os.read(self.fileno, READ_BYTES)
        except OSError:
            return b""
