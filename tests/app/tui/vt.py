"""A strict reader of what a program writes to a terminal: it knows what Textual writes, and nothing else.

Whatever it does not know is an intruder: another escape sequence, a control character, a byte that is not UTF-8.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from dataclasses import dataclass, field

MODES = {7, 25, 1000, 1003, 1004, 1006, 1015, 1016, 1049, 2004, 2026, 2048}
"""Wrapping, cursor, mouse, focus, alternate screen, paste, synchronised output, resize reports."""
KNOWN = (
    ("colour and style", re.compile(r"\x1b\[[0-9;]*m")),
    ("cursor", re.compile(r"\x1b\[\d{1,4};\d{1,4}H")),
    ("mode", re.compile(r"\x1b\[\?(\d{1,4})([hl])")),
    ("question about a mode", re.compile(r"\x1b\[\?(?:2026|2048)\$p")),
    ("question about the background", re.compile(r"\x1b\]11;\?\x1b\\")),
    ("keyboard", re.compile(r"\x1b\[(?:>29|<)u")),
    ("pointer shape", re.compile(r"\x1b\]22;[a-z-]{1,20}\x07")),
    ("clipboard", re.compile(r"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07")),
    ("line", re.compile(r"\r?\n")),
)
HIDDEN = re.compile(
    "[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\U000e0000-\U000e007f\u2028\u2029]"
)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class IntruderError(AssertionError):
    """Something that Textual does not write."""


@dataclass
class Written:
    """What a stream of bytes did."""

    forms: Counter[str] = field(default_factory=Counter)
    modes: dict[int, bool] = field(default_factory=dict)
    """What each mode was set to last."""
    copied: list[str] = field(default_factory=list)
    """What was put on the clipboard."""
    text: str = ""
    """Every character that was drawn, in the order of writing."""
    is_keyboard_changed: bool = False


def read(data: bytes) -> Written:
    """Read all of it. Raises IntruderError with the place."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntruderError(
            f"not UTF-8 at byte {error.start}: {data[error.start - 40 : error.end + 40]!r}"
        ) from None
    written, parts, at = Written(), [], 0
    while at < len(text):
        ahead = CONTROL.search(text, at)
        end = ahead.start() if ahead else len(text)
        if hidden := HIDDEN.search(text, at, end):
            raise IntruderError(f"{hidden[0]!r} in {text[max(0, hidden.start() - 40) : hidden.end() + 40]!r}")
        parts.append(text[at:end])
        at = _take(text, end, written) if ahead else end
    written.text = "".join(parts)
    return written


def _take(text: str, at: int, written: Written) -> int:
    """One sequence; where it ends."""
    for name, pattern in KNOWN:
        if found := pattern.match(text, at):
            _note(name, found, written)
            return found.end()
    raise IntruderError(f"{text[at : at + 60]!r} after {text[max(0, at - 60) : at]!r}")


def _note(name: str, found: re.Match[str], written: Written) -> None:
    written.forms[name] += 1
    if name == "mode":
        number = int(found[1])
        if number not in MODES:
            raise IntruderError(f"mode {number}")
        written.modes[number] = found[2] == "h"
    elif name == "clipboard":
        written.copied.append(base64.b64decode(found[1], validate=True).decode("utf-8"))
    elif name == "keyboard":
        written.is_keyboard_changed = found[0].startswith("\x1b[>")


LEFT_AS_IT_WAS = {
    7: True,
    25: True,
    1000: False,
    1003: False,
    1004: False,
    1006: False,
    1015: False,
    1049: False,
    2004: False,
}


def is_given_back(written: Written) -> bool:
    """Whether every mode is as a shell expects it."""
    is_default = all(written.modes.get(mode, wanted) == wanted for mode, wanted in LEFT_AS_IT_WAS.items())
    return is_default and not written.is_keyboard_changed
