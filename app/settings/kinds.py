"""Kinds of values: what a text means, which texts are allowed, and how a value is written.

A value is a text wherever a person writes one: in the file, the environment, a flag, a field on the screen. All
four go through the same kind, so that they take the same texts and refuse the rest in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.text.sanitise import cleaned

SHOWN_CHARACTERS = 60


class Kind(Protocol):
    """What one setting takes."""

    @property
    def allowed(self) -> str:
        """The texts that are taken, in words that follow `use`."""

    @property
    def placeholder(self) -> str:
        """The same in a word, for a usage line."""

    def parse(self, text: str) -> Any:
        """The value. Raises ValueError, with no message worth showing, for a text that is not allowed."""

    def to_text(self, value: Any) -> str:
        """The text that `parse` makes this value of; ValueError for what is no value of this kind."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range, both ends included."""

    least: float
    most: float
    is_whole: bool = False
    placeholder: str = "N"
    range: str = ""
    """The range in words, where the two ends do not say it well."""

    @property
    def allowed(self) -> str:
        """`a number from 0 to 1`."""
        return f"a {'whole ' if self.is_whole else ''}number {self.range or f'from {self.least} to {self.most}'}"

    def parse(self, text: str) -> int | float:
        """Digits, with a point and an exponent where the number need not be whole."""
        value = int(text) if self.is_whole else float(text)
        if not self.least <= value <= self.most:
            raise ValueError
        return value

    def to_text(self, value: Any) -> str:
        """As short as it can be read back."""
        is_number = isinstance(value, int if self.is_whole else int | float) and not isinstance(value, bool)
        if not is_number or not self.least <= value <= self.most:
            raise ValueError
        return str(int(value)) if value == int(value) else repr(float(value))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words, each with what it means; the first of several for one value is how it is written."""

    meanings: Mapping[str, Any]
    allowed: str
    placeholder: str

    def parse(self, text: str) -> Any:
        """In any case."""
        try:
            return self.meanings[text.strip().lower()]
        except KeyError:
            raise ValueError from None

    def to_text(self, value: Any) -> str:
        """The word of a value; True is not 1."""
        for word, meaning in self.meanings.items():
            if type(meaning) is type(value) and meaning == value:
                return word
        raise ValueError


@dataclass(frozen=True, slots=True)
class FreeText:
    """Any text."""

    allowed: str = "a text"
    placeholder: str = "TEXT"
    may_be_empty: bool = False

    def parse(self, text: str) -> str:
        """As it is, as far as UTF-8 can hold it: arguments and the environment may bring any bytes."""
        if "\0" in text or not (self.may_be_empty or text.strip()):
            raise ValueError
        return cleaned(text)

    def to_text(self, value: Any) -> str:
        """As it is."""
        if not isinstance(value, str):
            raise ValueError
        return self.parse(value)


def one_of(*words: str) -> Choice:
    """One of these words, which mean themselves."""
    return Choice({word: word for word in words}, _listed(words), "|".join(words))


def switch() -> Choice:
    """On or off."""
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
    """A text in quotes, short enough for a sentence, with nothing in it that could steer a terminal."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…")


def _listed(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
