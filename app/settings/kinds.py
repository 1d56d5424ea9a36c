"""Kinds of values: which texts each accepts, how they are parsed, and how a value is written as text.

The file, the environment, flags and the fields on the screen all use the same kinds, so they accept the same texts
and refuse others in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.text.sanitise import cleaned

SHOWN_CHARACTERS = 60


class Kind(Protocol):
    """The kind of value that a setting has."""

    @property
    def allowed(self) -> str:
        """The accepted texts, in words that can follow "Use"."""

    @property
    def placeholder(self) -> str:
        """The same as one word, for a usage line."""

    def parse(self, text: str) -> Any:
        """The value. Raises ValueError, whose message is not meant to be shown, for a text that is not allowed."""

    def to_text(self, value: Any) -> str:
        """The text that `parse` turns into this value. Raises ValueError for a value of another kind."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range, both ends included."""

    least: float
    most: float
    is_whole: bool = False
    placeholder: str = "N"
    range: str = ""
    """The range as text, where the two ends alone are unclear."""

    @property
    def allowed(self) -> str:
        """`a number from 0 to 1`."""
        return f"a {'whole ' if self.is_whole else ''}number {self.range or f'from {self.least} to {self.most}'}"

    def parse(self, text: str) -> int | float:
        """Digits; with a point and an exponent if the number need not be whole."""
        value = int(text) if self.is_whole else float(text)
        if not self.least <= value <= self.most:
            raise ValueError
        return value

    def to_text(self, value: Any) -> str:
        """The shortest text that parses back to the same number."""
        is_number = isinstance(value, int if self.is_whole else int | float) and not isinstance(value, bool)
        if not is_number or not self.least <= value <= self.most:
            raise ValueError
        return str(int(value)) if value == int(value) else repr(float(value))


AUTO = "auto"


@dataclass(frozen=True, slots=True)
class AutoOr:
    """A number, or the word auto, which stands for itself."""

    number: Number

    @property
    def allowed(self) -> str:
        """`auto or a number from 0 to 1`."""
        return f"{AUTO} or {self.number.allowed}"

    @property
    def placeholder(self) -> str:
        """`auto|N`."""
        return f"{AUTO}|{self.number.placeholder}"

    def parse(self, text: str) -> Any:
        """Upper and lower case are the same."""
        return AUTO if text.strip().lower() == AUTO else self.number.parse(text)

    def to_text(self, value: Any) -> str:
        """The word or the number."""
        return AUTO if value == AUTO else self.number.to_text(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words. Of several words for one value, the first is the one that is written."""

    meanings: Mapping[str, Any]
    allowed: str
    placeholder: str

    def parse(self, text: str) -> Any:
        """Upper and lower case are the same."""
        try:
            return self.meanings[text.strip().lower()]
        except KeyError:
            raise ValueError from None

    def to_text(self, value: Any) -> str:
        """The word for a value; True is not taken for 1."""
        for word, meaning in self.meanings.items():
            if type(meaning) is type(value) and meaning == value:
                return word
        raise ValueError


@dataclass(frozen=True, slots=True)
class FreeText:
    """Any text, without NUL characters."""

    allowed: str = "a text"
    placeholder: str = "TEXT"
    may_be_empty: bool = False

    def parse(self, text: str) -> str:
        """The text itself; lone surrogates, which arguments and the environment can contain, become `?`."""
        if "\0" in text or not (self.may_be_empty or text.strip()):
            raise ValueError
        return cleaned(text)

    def to_text(self, value: Any) -> str:
        """The text itself."""
        if not isinstance(value, str):
            raise ValueError
        return self.parse(value)


def one_of(*words: str) -> Choice:
    """A choice of words that stand for themselves."""
    return Choice({word: word for word in words}, _listed(words), "|".join(words))


def switch() -> Choice:
    """A choice of on and off, as booleans."""
    words = {
        "on": True,
        "off": False,
        "true": True,
        "false": False,
        "yes": True,
        "no": False,
        "1": True,
        "0": False,
    }
    return Choice(words, "on or off", "on|off")


def quoted(text: str) -> str:
    """A text in quotes, shortened to fit in a sentence and safe to print on a terminal."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…")


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
