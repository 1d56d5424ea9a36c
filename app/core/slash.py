"""Parses what a person typed: a message, a slash command, or neither. Knows no screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from app.core.commands import SLASH, Command

MAX_SHOWN_CHARACTERS = 80
"""Of a wrong argument, in the error."""

NamesFor = Callable[[Command], Sequence[str]]
"""The values of a command that only the running chat knows, such as the names of themes."""


@dataclass(frozen=True, slots=True)
class MessageText:
    """A message to send."""

    text: str


@dataclass(frozen=True, slots=True)
class ParsedCommand:
    """A command with the action to run."""

    command: Command
    action: str
    arguments: tuple[object, ...] = ()
    """Of the action; none if the command was typed alone."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Neither a message nor a valid command; the text stays in the prompt."""

    reason: str


def parse(
    text: str, names_for: NamesFor, table: Mapping[str, Command] = SLASH
) -> MessageText | ParsedCommand | Refusal:
    """Parse a typed text by the commands of `table`.

    Two slashes at the beginning send one. Commands and choices are accepted in any case.
    """
    if not text.startswith("/"):
        return MessageText(text)
    if text.startswith("//"):
        return MessageText(text[1:])
    name, _, rest = _split(text)
    command = _command_called(name, table)
    if command is None:
        return Refusal(_unknown_command(name, table))
    return _with_argument(command, rest.strip(), names_for)


def typed_as(message: str) -> str:
    """The text to type to send `message`: a slash at the beginning is doubled."""
    return f"/{message}" if message.startswith("/") else message


def from_paste(text: str) -> str:
    """A pasted text as it would be typed: code that begins with a slash becomes a message, not a command."""
    name = _split(text)[0] if text.startswith("/") else ""
    is_likely_a_typo = name[:1].isalpha() and "\n" not in text.rstrip()
    return text if not name or is_likely_a_typo or _command_called(name, SLASH) else typed_as(text)


def _split(text: str) -> tuple[str, str, str]:
    """The name without its slash, the blank, and what follows."""
    end = next((index for index, character in enumerate(text) if character.isspace()), len(text))
    return text[1:end], text[end : end + 1], text[end + 1 :]


def _command_called(name: str, table: Mapping[str, Command]) -> Command | None:
    name = name.lower()
    return table.get(name) or next((command for command in table.values() if name in command.aliases), None)


def _with_argument(command: Command, text: str, names_for: NamesFor) -> ParsedCommand | Refusal:
    name, argument = command.slash, command.argument
    if argument is None:
        return Refusal(f"/{name} takes no argument.") if text else ParsedCommand(command, command.action)
    if not text:
        if argument.is_required:
            return Refusal(f"/{name} needs {argument.allowed}: /{name} {argument.syntax}")
        return ParsedCommand(command, command.action)
    if argument.completes == "themes" and text not in names_for(command):
        return Refusal(f"/{name}: use {_listed(names_for(command))}, not {_shown(text)}.")
    text = next((choice for choice in argument.choices if choice == text.lower()), text)
    try:
        return ParsedCommand(command, argument.action, (argument.parse(text),))
    except (ValueError, LookupError, OverflowError):
        return Refusal(f"/{name}: use {argument.allowed}, not {_shown(text)}.")


def _shown(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else "".join(names)


def _unknown_command(name: str, table: Mapping[str, Command]) -> str:
    near = nearest(name, table)
    guess = f"Did you mean /{near}? " if near else ""
    return (
        f"/{name[:40]} is not a command. {guess}/help lists the commands. "
        "To send a message that begins with a slash, type // instead."
    )


def nearest(name: str, table: Mapping[str, Command] = SLASH) -> str | None:
    """The command that was probably meant."""
    name = name.lower()
    starting = [slash for slash in table if name and slash.startswith(name)]
    spellings = {spelling: row.slash for row in table.values() for spelling in (row.slash, *row.aliases)}
    close = get_close_matches(name[:40], spellings, n=1)
    return starting[0] if starting else spellings[close[0]] if close else None
