"""Makes text from outside safe to draw: it can neither steer the terminal nor hide anything.

All output passes through here: transcript, titles, errors, notifications, clipboard, log, exports. It works on
single characters, so an escape sequence that is split over several pieces stays harmless.
"""

from __future__ import annotations

from functools import cache

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_HIDDEN = (
    0x00AD,
    0x034F,
    0x061C,
    *range(0x115F, 0x1161),
    *range(0x17B4, 0x17B6),
    0x180E,
    0x200B,
    0x200E,
    0x200F,
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    0x3164,
    0xFEFF,
    0xFFA0,
    *range(0xFFF0, 0xFFFC),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE0100),
    *range(0xE01F0, 0xE1000),
)
"""Characters that change the reading direction or are invisible: Unicode's Default_Ignorable_Code_Point, and the
interlinear annotations. Allowed are those that scripts and emoji need: the joiners U+200C and U+200D, and the
variation selectors, those of Mongolian included."""

_STAND_INS: dict[int, str] = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: "\N{SYMBOL FOR DELETE}",
    **dict.fromkeys(range(0x80, 0xA0), _REPLACEMENT),
    **dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT),
    # Line and paragraph separators: Textual and markdown-it disagree on whether they end a line.
    0x2028: "\n",
    0x2029: "\n",
    **{code: f"<U+{code:04X}>" for code in _HIDDEN},
}

UNSAFE_CODES = tuple(_STAND_INS)
"""The code points that `sanitise` replaces: all that a terminal must not get, except newline and tab."""


def cleaned(text: str) -> str:
    """Text that UTF-8 can represent, for storing or sending: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def sanitise(text: str) -> str:
    """Make C0 (except newline and tab), DEL, C1, bidi controls, tags and lone surrogates visible.

    Idempotent, and sanitise(a + b) == sanitise(a) + sanitise(b).
    """
    return text.translate(_STAND_INS)


def sanitise_line(text: str) -> str:
    """The sanitised text on one line, for titles."""
    return sanitise(" ".join(text.split()))


def sanitise_cells(line: str) -> str:
    """A line with each unsafe character replaced by exactly one, so that cursor positions stay valid."""
    return line.translate(_cells())


def sanitise_json(json: str) -> str:
    """An equivalent JSON text with all unsafe characters escaped."""
    return json.translate(_json())


# Tables of thousands of characters, made when they are first needed.


@cache
def _cells() -> dict[int, str]:
    return _STAND_INS | dict.fromkeys((*_HIDDEN, 0x2028, 0x2029), _REPLACEMENT)


@cache
def _json() -> dict[int, str]:
    return {
        code: "".join(
            f"\\u{unit:04x}"
            for unit in (
                (code,) if code < 0x10000 else (0xD800 + ((code - 0x10000) >> 10), 0xDC00 + (code & 0x3FF))
            )
        )
        for code in UNSAFE_CODES
        if chr(code) != "\r"
    }
