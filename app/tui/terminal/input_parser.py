"""Turns what a terminal sends into keys, pastes and mouse events, and drops what it cannot read.

Textual's XTermParser types what it does not know, raises on some key reports (which ends the app), and reads a
second escape as the key. Its loop cannot be mended from outside, so this replaces it. It keeps Textual's names of
keys and its mouse events. Both are private to Textual, which is why its version is pinned and only this file uses
them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator

from textual import constants, events
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual._keyboard_protocol import FUNCTIONAL_KEYS
from textual._parser import ParseEOF, ParseTimeout, Peek1, Read1
from textual._xterm_parser import IS_ITERM, XTermParser
from textual.message import Message
from textual.messages import InBandWindowResize, TerminalSupportsSynchronizedOutput

ESC = "\x1b"
PASTE_BEGINS, PASTE_ENDS = "\x1b[200~", "\x1b[201~"
REST_S = 1.0
"""How long the rest of a report may take to arrive. A person cannot have typed what came before."""
PASTE_REST_S = 3.0
"""How long the rest of a paste may take to arrive. Without its end, what came is the paste, and keys are keys."""
MAX_REPORT = 128
MAX_STRING = 4096
"""Longer reports are dropped."""
MAX_CELLS = 2000
"""Of a window that a report describes, in each direction."""

SHIFT, ALT, CTRL, SUPER = 1, 2, 4, 8
LOCKS = 64 | 128
"""Bits of the modifiers in a key report."""

_KEY = re.compile(r"\x1b\[(\d*)(?::(\d*))?(?::(\d*))?(?:;(\d*)(?::(\d*))?)?(?:;([\d:]*))?([u~A-FHPQRS])")
"""Code, shifted code, code in the US layout, modifiers, event, text, and the kind of key."""
_SGR_MOUSE = re.compile(r"\x1b\[<\d{1,5};-?\d{1,5};-?\d{1,5}[Mm]")
_MODE = re.compile(r"\x1b\[\?(\d+);(\d)\$y")
_SIZE = re.compile(r"\x1b\[48;(\d+)[\d:]*;(\d+)[\d:]*;(\d+)[\d:]*;(\d+)[\d:]*t")
_RXVT_SHIFT = re.compile(r"\x1b\[\d+\$")
_RELEASED = "3"
_STRINGS = re.compile(r"\x1b(?:\]\d|P[\d>+|!$]|_G)")
"""How answers that are strings begin: colours, the terminal's name, graphics."""

_CYRILLIC = dict(zip("йцукенгшщзхъфывапролджэячсмитьбю", "qwertyuiop[]asdfghjkl;'zxcvbnm,.", strict=True))
"""For terminals that do not report the key in the US layout."""

_AFTER_ESCAPE = {
    "\r": "alt+enter",
    "\n": "alt+enter",
    "\x7f": "alt+backspace",
    "\b": "alt+backspace",
    "\t": "shift+tab",
    "b": "alt+left",
    "f": "alt+right",
}
"""Other keys than alt and the character. Terminal.app and iTerm2 send b and f for option and an arrow."""

Emit = Callable[[Message], None]
Reading = Generator[Read1 | Peek1, str, None]


class InputParser(XTermParser):
    """Never raises, whatever it is fed; no report that it cannot read reaches the app."""

    def __init__(self, debug: bool = False) -> None:
        self._ahead: deque[str] = deque()
        """Characters to read again, because they ended a report that was not complete."""
        self._reports_size = False
        self.is_pasting = False
        """Whether a paste has begun, and its end has neither come nor been given up."""
        super().__init__(debug)

    def parse(self, token_callback: Emit) -> Reading:
        """Read characters and report events, until the end of the input."""
        try:
            while True:
                character = yield from self._next()
                if character == ESC:
                    yield from self._after_escape(token_callback)
                elif character is not None:
                    for key in self._sequence_to_key_events(character):
                        token_callback(key)
        except ParseEOF:
            return

    def _next(self, timeout_s: float | None = None) -> Generator[Read1 | Peek1, str, str | None]:
        """The next character; None if none comes in time."""
        if self._ahead:
            return self._ahead.popleft()
        try:
            return (yield self.read1(timeout_s))
        except ParseTimeout:
            return None

    def _after_escape(self, emit: Emit) -> Reading:
        escapes, character = 1, (yield from self._next(constants.ESCAPE_DELAY))
        while character == ESC:
            escapes, character = escapes + 1, (yield from self._next(constants.ESCAPE_DELAY))
        has_meta = escapes > 1 and character is not None and character in "[O"
        pressed = escapes if character is None else escapes - 1 - has_meta
        for _ in range(pressed):
            emit(events.Key("escape", ESC))
        if character is None:
            return
        if character == "[":
            report = yield from self._control_sequence()
        elif character == "O":
            report = yield from self._single_shift()
        elif character in "]P_":
            report = yield from self._string(character)
        else:
            report = ESC + character
        found = self._events_of(report)
        if has_meta and (_is_no_key(report) or any(not isinstance(event, events.Key) for event in found)):
            emit(events.Key("escape", ESC))  # pressed just before the terminal reported something else
        for event in found:
            emit(_with_alt(event) if has_meta and isinstance(event, events.Key) else event)
        if report == PASTE_BEGINS:
            yield from self._paste(emit)

    def _control_sequence(self) -> Generator[Read1 | Peek1, str, str]:
        """The rest of a report that began with `ESC [`; empty if it is not complete or too long."""
        report, is_too_long = f"{ESC}[", False
        while True:
            character = yield from self._next(REST_S if len(report) > 2 else constants.ESCAPE_DELAY)
            # The old mouse reports have characters of any kind.
            last = "~" if not report.startswith("\x1b[M") else "\U0010ffff"
            if character is None or not " " <= character <= last:
                self._ahead.extend(character or "")
                return report if len(report) == 2 else ""
            if len(report) < MAX_REPORT:
                report += character
            else:
                is_too_long = True
            if _is_complete(report, character):
                return "" if is_too_long else report

    def _single_shift(self) -> Generator[Read1 | Peek1, str, str]:
        """The rest of a report that began with `ESC O`."""
        report = f"{ESC}O"
        while len(report) < MAX_REPORT:
            character = yield from self._next(REST_S if len(report) > 2 else constants.ESCAPE_DELAY)
            if character is None or not " " < character <= "~":
                self._ahead.extend(character or "")
                return report if len(report) == 2 else ""
            report += character
            if not (character.isdecimal() or character == ";"):
                return report
        return ""

    def _string(self, character: str) -> Generator[Read1 | Peek1, str, str]:
        """Drop an answer that is a string. Returns what it is if it is none: a key."""
        second = yield from self._next(constants.ESCAPE_DELAY)
        if second is None or not _STRINGS.fullmatch(ESC + character + second):
            self._ahead.extend(second or "")
            return ESC + character
        for _ in range(MAX_STRING):
            character = (yield from self._next(REST_S)) or "\a"
            if character == ESC:
                end = yield from self._next(constants.ESCAPE_DELAY)
                if end not in ("\\", None):
                    self._ahead.extend((ESC, end))
                return ""
            if character in "\a\x9c":
                return ""
            if character < " ":
                self._ahead.append(character)
                return ""
        return ""

    def _paste(self, emit: Emit) -> Reading:
        """Text up to the end marker, or to a long silence. PasteGuard leaves no other escape character in it."""
        pasted: list[str] = []
        self.is_pasting = True
        while (character := (yield from self._next(PASTE_REST_S))) is not None:
            pasted.append(character)
            if character == "~" and "".join(pasted[-len(PASTE_ENDS) :]) == PASTE_ENDS:
                del pasted[-len(PASTE_ENDS) :]
                break
        self.is_pasting = False
        if text := "".join(pasted).replace("\x00", ""):
            emit(events.Paste(text))

    def _events_of(self, report: str) -> list[Message]:
        """The events of a complete report; none if it means nothing here."""
        if report == "\x1b[I":
            return [events.AppFocus()]
        if report == "\x1b[O":
            return [events.AppBlur()]
        if _SGR_MOUSE.fullmatch(report):
            mouse = self.parse_mouse_code(report)
            return [mouse] if mouse else []
        if mode := _MODE.fullmatch(report):
            return list(self._mode_events(mode[1], int(mode[2])))
        if size := _SIZE.fullmatch(report):
            return list(self._size_events(*map(int, size.groups())))
        return [*self._sequence_to_key_events(report)]

    def _mode_events(self, mode: str, setting: int) -> Iterator[Message]:
        """What the terminal answers about a mode that Textual asks for."""
        if mode == "2026" and setting > 0:
            yield TerminalSupportsSynchronizedOutput()
        elif mode == "2048" and constants.SMOOTH_SCROLL and not IS_ITERM:
            answer = InBandWindowResize.from_setting_parameter(setting)
            self._reports_size = answer.supported
            yield answer

    def _size_events(self, rows: int, columns: int, pixel_rows: int, pixel_columns: int) -> Iterator[Message]:
        """A new size of the window, if reports of it were agreed on and it can be true."""
        is_possible = 0 < rows <= MAX_CELLS and 0 < columns <= MAX_CELLS and pixel_rows > 0 and pixel_columns > 0
        if self._reports_size and is_possible:
            resize = events.Resize.from_dimensions((columns, rows), (pixel_columns, pixel_rows))
            self.terminal_size, self.terminal_pixel_size = resize.size, resize.pixel_size
            self.mouse_pixels = True
            yield resize

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[events.Key]:
        """The keys of a character or of a report."""
        if len(sequence) == 1:
            return super()._sequence_to_key_events(sequence)
        if len(sequence) == 2 and sequence[0] == ESC:
            return list(self._after_escape_keys(sequence[1]))
        if report := _KEY.fullmatch(sequence):
            normal = _normal_report(*report.groups())
            if normal and (keys := self._parse_extended_key(normal)):
                return [key.copy() for key in keys]
        keys_by_table = ANSI_SEQUENCES_KEYS.get(sequence)
        if isinstance(keys_by_table, tuple) and len(keys_by_table) == 1:
            return [events.Key(keys_by_table[0].value, None)]
        if isinstance(keys_by_table, str) and sequence.startswith("\x1bO"):
            return super()._sequence_to_key_events(keys_by_table)
        return []

    def _after_escape_keys(self, character: str) -> Iterator[events.Key]:
        """Escape and a character: the key with alt, which types nothing. Escape and a ctrl key are two keys."""
        [key] = super()._sequence_to_key_events(character)
        if name := _AFTER_ESCAPE.get(character):
            yield events.Key(name, None)
        elif character < " ":
            yield from (events.Key("escape", ESC), key)
        else:
            shift = "shift+" if character.isupper() else ""
            yield events.Key(f"alt+{shift}{key.key.lower() if shift else key.key}", None)


def _is_no_key(report: str) -> bool:
    return report == PASTE_BEGINS or report[2:3] in ("?", "<", ">", "M")


def _is_complete(report: str, last: str) -> bool:
    if report == "\x1b[[":
        return False  # function keys of the Linux console
    if report.startswith("\x1b[M"):
        return len(report) == len("\x1b[M") + 3
    return "@" <= last <= "~" or bool(_RXVT_SHIFT.fullmatch(report))


def _with_alt(key: events.Key) -> events.Key:
    *modifiers, name = key.key.split("+")
    return events.Key("+".join([*sorted({"alt", *modifiers}), name]), None)


def _normal_report(
    code_text: str,
    shifted: str | None,
    base: str | None,
    modifiers: str | None,
    event: str | None,
    text: str | None,
    end: str,
) -> str:
    """A key report in the one form that Textual reads right; empty if it is none.

    Without ctrl and the like, a character is its own text. With them, a key of another alphabet counts as the one
    in its place in the US layout.
    """
    code = int(code_text or "1")
    bits = max(0, int(modifiers or "1") - 1) & ~LOCKS
    if event == _RELEASED:
        return ""
    if end == "~" and code == 27 and text is not None and text.isdecimal():
        code, text, end = int(text), "", "u"  # the older form, of xterm's modifyOtherKeys
    if end != "u":
        # iTerm2 has a bit of its own for option with an arrow.
        bits = bits & ~SUPER | ALT if bits & SUPER and end in "ABCDFH" else bits
        return _report_of(code, bits, "", end) if f"{code}{end}" in FUNCTIONAL_KEYS else ""
    if code == ord("[") and bits == CTRL:
        code, bits = ord(ESC), 0  # what other terminals send for it
    if f"{code}u" in FUNCTIONAL_KEYS:
        return _report_of(code, bits, _texts(text), end)
    if not _is_text(code) or (text and not _texts(text)):
        return ""
    typed = _texts(text) if bits & (CTRL | ALT) != CTRL else ""
    if bits & ~SHIFT and not typed:
        if code > 127:
            code = _code_of(base) or ord(_CYRILLIC.get(chr(code), chr(code)))
    elif not typed:
        upper = chr(code).upper()
        typed = str(code if not bits else _code_of(shifted) or (ord(upper) if len(upper) == 1 else code))
    return _report_of(code, bits, typed, end)


def _report_of(code: int, bits: int, typed: str, end: str) -> str:
    return f"\x1b[{code};{bits + 1 if bits else ''};{typed}{end}"


def _code_of(digits: str | None) -> int | None:
    """A code point that is text; None if there is none."""
    return int(digits) if digits and _is_text(int(digits)) else None


def _texts(codes: str | None) -> str:
    """Those of the code points, joined by colons, that are text."""
    return ":".join(code for code in (codes or "").split(":") if _code_of(code))


def _is_text(code: int) -> bool:
    return 32 <= code <= 0x10FFFF and not 0x7F <= code < 0xA0 and not 0xD800 <= code <= 0xDFFF
