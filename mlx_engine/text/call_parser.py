"""What the model wrote between the marks of a call, as a name and arguments.

Deviations are repaired only where nothing is guessed: spaces, a trailing comma, JSON's quotes, braces that the
end mark closes. A literal that JSON does not have is a string, which the tool's schema may refuse. Everything else
is no call.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from mlx_engine.text.hidden_texts import STAND_INS
from mlx_engine.text.tool_format import MAX_DEPTH

HEAD = re.compile(r"\s*(?:call)?:\s*([^\s(){}\[\]\"](?:[^\n(){}\[\]\"]*[^\s(){}\[\]\"])?)\s*(?=\{)")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
WORDS = {"null": None, "None": None, "true": True, "True": True, "false": False, "False": False}
MAX_DIGITS = 4000
"""Python refuses longer integers."""
JSON_FORM = {"name", "arguments"}


class NoCallError(Exception):
    """The message says why, for the program that sent the tools."""


Call = tuple[str, dict[str, Any]]
"""A name and arguments."""


def parse_calls(pieces: Sequence[str], is_closed: bool) -> list[Call]:
    """The calls in one pair of marks. Raises NoCallError.

    pieces: the text, split at its quote marks. is_closed: the end mark was written.
    """
    if len(pieces) % 2 == 0:
        raise NoCallError("a string in it has no end")
    return _Parser(pieces, is_closed).calls()


class _Parser:
    """Recursive descent over the text, in which a character that it does not contain stands for each string."""

    def __init__(self, pieces: Sequence[str], is_closed: bool) -> None:
        outside = pieces[::2]
        stand_in = next(chr(code) for code in STAND_INS if not any(chr(code) in text for text in outside))
        self._text, self._stand_in = stand_in.join(outside), stand_in
        self._strings = list(pieces[1::2])
        self._is_closed = is_closed
        self._at = 0
        bare = f'{re.escape(stand_in)}"{{}}\\[\\]'
        self._key = re.compile(f"[^{bare},:]*")
        self._literal = re.compile(f"[^{bare},]*")

    def calls(self) -> list[Call]:
        if self._next() == "{":
            calls = [self._json_form()]
        else:
            calls = [self._call()]
            while self._next():
                calls.append(self._call())
        if self._next():
            raise NoCallError("something follows its arguments")
        return calls

    def _call(self) -> Call:
        head = HEAD.match(self._text, self._at)
        if not head or self._stand_in in head[1]:
            raise NoCallError("it is not written as call:name{...}")
        self._at = head.end()
        return head[1], self._object(1)

    def _json_form(self) -> Call:
        whole = self._object(0)
        name, arguments = whole.get("name"), whole.get("arguments")
        if whole.keys() != JSON_FORM or not isinstance(name, str) or not name or not isinstance(arguments, dict):
            raise NoCallError("it is not written as call:name{...}")
        return name, arguments

    def _object(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        self._at += 1
        while not self._takes_end("}"):
            key = self._name()
            if self._next() != ":":
                raise NoCallError("a name in its arguments has no value")
            self._at += 1
            if key in values:
                raise NoCallError("two of its arguments have the same name")
            values[key] = self._value(depth + 1)
            self._take_comma("}")
        return values

    def _array(self, depth: int) -> list[Any]:
        values: list[Any] = []
        self._at += 1
        while not self._takes_end("]"):
            values.append(self._value(depth + 1))
            self._take_comma("]")
        return values

    def _name(self) -> str:
        character = self._next()
        if character in (self._stand_in, '"'):
            return self._string(character)
        name = self._bare(self._key)
        if not name:
            raise NoCallError("one of its arguments has no name")
        return name

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise NoCallError(f"its arguments are nested more than {MAX_DEPTH} levels deep")
        match self._next():
            case "{":
                return self._object(depth)
            case "[":
                return self._array(depth)
            case character if character in (self._stand_in, '"') and character:
                return self._string(character)
        literal = self._bare(self._literal)
        if not literal:
            raise NoCallError("one of its arguments has no value")
        return _meant(literal)

    def _string(self, character: str) -> str:
        if character == self._stand_in:
            self._at += 1
            return self._strings.pop(0)
        try:
            text, self._at = json.JSONDecoder(strict=False).raw_decode(self._text, self._at)
            text.encode()
        except ValueError:
            raise NoCallError("a string in it is not complete") from None
        if self._stand_in in text:
            raise NoCallError("a string in it is not complete")
        return str(text)

    def _bare(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match
        self._at = match.end()
        return match[0].strip()

    def _takes_end(self, bracket: str) -> bool:
        """Whether the object or array ends here; the end mark closes whatever is open."""
        character = self._next()
        if character == bracket:
            self._at += 1
            return True
        if not character and not self._is_closed:
            raise NoCallError("it was cut off")
        return not character

    def _take_comma(self, bracket: str) -> None:
        character = self._next()
        if character == ",":
            self._at += 1
        elif character not in (bracket, ""):
            raise NoCallError("a comma is missing in its arguments")

    def _next(self) -> str:
        """The next character that is no space, which is not taken; empty at the end."""
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1
        return self._text[self._at : self._at + 1]


def _meant(literal: str) -> Any:
    """The value of a literal; a string if JSON has no such literal."""
    if literal in WORDS:
        return WORDS[literal]
    number = NUMBER.fullmatch(literal)
    if not number or len(literal) > MAX_DIGITS:
        return literal
    if number[2] or number[3]:
        return float(literal) if math.isfinite(float(literal)) else literal
    return int(literal)
