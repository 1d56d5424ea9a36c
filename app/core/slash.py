"""What a person types after a slash, read into a command or refused in a sentence. Knows no screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from app.core.commands import SLASH, Command

Offered = Callable[[Command], Sequence[str]]
"""The values that only the running chat knows, such as the names of themes."""


@dataclass(frozen=True, slots=True)
class Say:
    """No command: a message to send."""

    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """A command, and what is to be run."""

    command: Command
    action: str
    values: tuple[object, ...] = ()
    """Of the action; none: the command was typed alone."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Neither: the text stays where it is."""

    words: str


def read(text: str, offered: Offered, table: Mapping[str, Command] = SLASH) -> Say | Run | Refuse:
    """What `text` asks for, by the commands of `table`.

    Two slashes at the front send one. Commands and choices are read in any case.
    """
    if not text.startswith("/"):
        return Say(text)
    if text.startswith("//"):
        return Say(text[1:])
    name, _, rest = _split(text)
    command = _find(name, table)
    if command is None:
        return Refuse(_no_command(name, table))
    return _with_argument(command, rest.strip(), offered)


def typed(message: str) -> str:
    """What sends `message`: one that begins with a slash has another in front."""
    return f"/{message}" if message.startswith("/") else message


def from_paste(text: str) -> str:
    """What sends a text that was pasted. As code begins, no command does: `//`, `/*`, or lines without a name."""
    name = _split(text)[0] if text.startswith("/") else ""
    is_likely_a_slip = name[:1].isalpha() and "\n" not in text.rstrip()
    return text if not name or is_likely_a_slip or _find(name, SLASH) else typed(text)


def _split(text: str) -> tuple[str, str, str]:
    end = next((at for at, character in enumerate(text) if character.isspace()), len(text))
    return text[1:end], text[end : end + 1], text[end + 1 :]


def _find(name: str, table: Mapping[str, Command]) -> Command | None:
    name = name.lower()
    return table.get(name) or next((each for each in table.values() if name in each.also), None)


def _with_argument(command: Command, typed: str, offered: Offered) -> Run | Refuse:
    name, argument = command.slash, command.argument
    if argument is None:
        return Refuse(f"/{name} takes nothing after it.") if typed else Run(command, command.action)
    if not typed:
        needs = f"/{name} needs {argument.allowed}: /{name} {argument.shape}"
        return Refuse(needs) if argument.is_required else Run(command, command.action)
    if argument.offers == "themes" and typed not in offered(command):
        return Refuse(f"/{name} takes {_listed(offered(command))}; not {typed!r}.")
    typed = next((choice for choice in argument.choices if choice == typed.lower()), typed)
    try:
        return Run(command, argument.action, (argument.read(typed),))
    except (ValueError, LookupError, OverflowError):
        return Refuse(f"/{name} takes {argument.allowed}; not {typed!r}.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else "".join(names)


def _no_command(name: str, table: Mapping[str, Command]) -> str:
    near = nearest(name, table)
    said = f"Did you mean /{near}? " if near else ""
    return f"/{name[:40]} is no command. {said}Begin with // to send a slash; /help lists the commands."


def nearest(name: str, table: Mapping[str, Command] = SLASH) -> str | None:
    """The command that was probably meant."""
    name = name.lower()
    begins = [each for each in table if name and each.startswith(name)]
    spellings = {spelling: each.slash for each in table.values() for spelling in (each.slash, *each.also)}
    close = get_close_matches(name[:40], spellings, n=1)
    return begins[0] if begins else spellings[close[0]] if close else None
