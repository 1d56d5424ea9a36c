"""What can be completed at the cursor: a command after a slash, its argument, a file after @. Knows no screen."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from app.core.commands import SLASH, Command
from app.core.slash import Offered
from models.errors import PathError
from models.paths import expanded

MOST_OFFERED = 50
MOST_LOOKED_AT = 5000
"""Entries of one folder; who looks for more types more letters."""

_COMMAND = re.compile(r"/([^\s/]*)\Z")
_ARGUMENT = re.compile(r"/(\S+)\s+(.*)\Z")
_MENTION = re.compile(r"""(?:\A|(?<=\s))@(?:"([^"\n]*)|([^\s"]*))\Z""")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to go on."""

    text: str
    """What takes the place of what was typed."""
    note: str = ""
    """What it does, in a few words."""
    ends: str = ""
    """What follows when it is taken: a space where more is to come."""


@dataclass(frozen=True, slots=True)
class Completing:
    """What is being typed, in front of the cursor."""

    typed: str
    candidates: tuple[Candidate, ...]
    is_chosen: bool
    """Whether the first is meant without a further key."""


@dataclass(frozen=True, slots=True)
class Place:
    """Files are asked for; listing them takes the disk."""

    typed: str
    """What takes the place of is this."""
    path: str
    """The path so far."""
    is_mention: bool
    """After @, where it is quoted if it has spaces."""


def complete(before: str, is_first_line: bool, offered: Offered) -> Completing | Place | None:
    """What can be completed in a line of which `before` stands in front of the cursor; None: nothing."""
    if is_first_line and before.startswith("/") and not before.startswith("//"):
        if match := _COMMAND.match(before):
            return _commands(match[1])
        if match := _ARGUMENT.match(before):
            return _arguments(SLASH.get(match[1].lower()), match[2], offered)
    if match := _MENTION.search(before):
        return Place(match[0], match[1] if match[1] is not None else match[2], is_mention=True)
    return None


def _commands(typed: str) -> Completing | None:
    wanted = typed.lower()
    begins = [each for each in SLASH.values() if each.slash.startswith(wanted)]
    holds = [each for each in SLASH.values() if wanted in each.slash and each not in begins]
    exact = [each for each in begins if each.slash == wanted]
    found = [*exact, *(each for each in begins if each not in exact), *holds]
    candidates = (Candidate(f"/{each.slash}", each.title, " " * bool(each.argument)) for each in found)
    return _completing(f"/{typed}", candidates, is_chosen=True)


def _arguments(command: Command | None, typed: str, offered: Offered) -> Completing | Place | None:
    if command is None or command.argument is None:
        return None
    if command.argument.offers == "files":
        return Place(typed, typed, is_mention=False)
    names = (*command.argument.choices, *(offered(command) if command.argument.offers else ()))
    found = (Candidate(name) for name in names if name.lower().startswith(typed.lower()))
    return _completing(typed, found, is_chosen=bool(typed))


def _completing(typed: str, candidates: Iterable[Candidate], *, is_chosen: bool) -> Completing | None:
    found = tuple(islice(candidates, MOST_OFFERED))
    if not found or [each.text for each in found] == [typed]:
        return None
    return Completing(typed, found, is_chosen)


def list_files(place: Place, folder: Path) -> Completing | None:
    """The files and folders that a path may go on with, relative ones from `folder`."""
    if place.path == "~":
        return _completing(place.typed, [Candidate(_written("~/", place.is_mention))], is_chosen=True)
    parent, _, beginning = place.path.rpartition("/")
    prefix = f"{parent}/" if "/" in place.path else ""
    try:
        with os.scandir(folder / expanded(prefix or ".")) as entries:
            seen = [(each.name, each.is_dir()) for each in islice(entries, MOST_LOOKED_AT)]
    except (OSError, PathError):
        return None
    names = sorted(
        (not name.startswith(beginning), name.lower(), name + "/" * is_folder)
        for name, is_folder in seen
        if name.lower().startswith(beginning.lower())
        and name.isprintable()
        and '"' not in name
        and (beginning.startswith(".") or not name.startswith("."))
    )
    found = (_file(prefix + name, place.is_mention) for _, _, name in names)
    return _completing(place.typed, found, is_chosen=bool(place.path))


def _file(path: str, is_mention: bool) -> Candidate:
    ends = " " if is_mention and not path.endswith("/") else ""
    return Candidate(_written(path, is_mention), ends=ends)


def _written(path: str, is_mention: bool) -> str:
    if not is_mention:
        return path
    # An open quote lets a folder with spaces go on.
    return f"@{path}" if not re.search(r"\s", path) else f'@"{path}' + '"' * (not path.endswith("/"))
