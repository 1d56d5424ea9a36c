"""Completions at the cursor: a command after a slash, its argument, or a file after an @. Knows no screen."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from app.core.commands import SLASH, Command
from app.core.slash import NamesFor
from app.text.folding import folded
from models.errors import PathError
from models.paths import expanded

MAX_CANDIDATES = 50
MAX_FOLDER_ENTRIES = 5000
"""More entries of one folder are not read; typing more letters narrows the list."""

_COMMAND = re.compile(r"/([^\s/]*)\Z")
_ARGUMENT = re.compile(r"/(\S+)\s+(.*)\Z")
_MENTION = re.compile(r"""(?:\A|(?<=\s))@(?:"([^"\n]*)|([^\s"]*))\Z""")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of the list."""

    text: str
    """Replaces what was typed."""
    description: str = ""
    suffix: str = ""
    """Added when it is chosen: a space where more can follow."""


@dataclass(frozen=True, slots=True)
class Completions:
    """What can replace the text before the cursor."""

    typed: str
    """The text to replace."""
    candidates: tuple[Candidate, ...]
    is_first_selected: bool
    """Whether enter chooses the first one; otherwise an arrow key has to select one."""


@dataclass(frozen=True, slots=True)
class PartialPath:
    """A path is being typed. `list_files` completes it, which reads the disk."""

    typed: str
    """The text to replace."""
    path: str
    is_mention: bool
    """It follows an @, so it is quoted if it has spaces."""


def complete(line_before: str, is_first_line: bool, names_for: NamesFor) -> Completions | PartialPath | None:
    """The completions for the part of a line before the cursor; None if there are none."""
    if is_first_line and line_before.startswith("/") and not line_before.startswith("//"):
        if match := _COMMAND.match(line_before):
            return _complete_command(match[1])
        if match := _ARGUMENT.match(line_before):
            return _complete_argument(SLASH.get(match[1].lower()), match[2], names_for)
    if match := _MENTION.search(line_before):
        return PartialPath(match[0], match[1] if match[1] is not None else match[2], is_mention=True)
    return None


def _complete_command(typed: str) -> Completions | None:
    """The exact command first, then those that begin with the typed text, then those that contain it."""
    name = typed.lower()
    containing = (command for command in SLASH.values() if name in command.slash)
    ranked = sorted(containing, key=lambda row: (row.slash != name, not row.slash.startswith(name)))
    candidates = (Candidate(f"/{row.slash}", row.title, " " * bool(row.argument)) for row in ranked)
    return _completions(f"/{typed}", candidates, is_first_selected=True)


def _complete_argument(
    command: Command | None, typed: str, names_for: NamesFor
) -> Completions | PartialPath | None:
    if command is None or command.argument is None:
        return None
    if command.argument.completes == "files":
        return PartialPath(typed, typed, is_mention=False)
    names = (*command.argument.choices, *(names_for(command) if command.argument.completes else ()))
    candidates = (Candidate(name) for name in names if name.lower().startswith(typed.lower()))
    return _completions(typed, candidates, is_first_selected=bool(typed))


def _completions(typed: str, candidates: Iterable[Candidate], *, is_first_selected: bool) -> Completions | None:
    shown = tuple(islice(candidates, MAX_CANDIDATES))
    if not shown or [candidate.text for candidate in shown] == [typed]:
        return None
    return Completions(typed, shown, is_first_selected)


def list_files(partial: PartialPath, folder: Path) -> Completions | None:
    """The files and folders that complete a path; a relative one starts from `folder`.

    Case and accents may be left out, and names on the disk may be in either Unicode form.
    """
    if partial.path == "~":
        return _completions(partial.typed, [_file("~/", partial.is_mention)], is_first_selected=True)
    parent, _, beginning = partial.path.rpartition("/")
    prefix = f"{parent}/" if "/" in partial.path else ""
    try:
        with os.scandir(folder / expanded(prefix or ".")) as entries:
            read = [(entry.name, entry.is_dir()) for entry in islice(entries, MAX_FOLDER_ENTRIES)]
    except (OSError, PathError):
        return None
    names = sorted(
        (not name.startswith(beginning), folded(name), name + "/" * is_folder)
        for name, is_folder in read
        if folded(name).startswith(folded(beginning))
        and name.isprintable()
        and '"' not in name
        and (beginning.startswith(".") or not name.startswith("."))
    )
    candidates = (_file(prefix + name, partial.is_mention) for _, _, name in names)
    return _completions(partial.typed, candidates, is_first_selected=bool(partial.path))


def _file(path: str, is_mention: bool) -> Candidate:
    if not is_mention:
        return Candidate(path)
    is_folder = path.endswith("/")
    # The quote of a folder stays open, so that its path can be continued.
    text = f'@"{path}' + '"' * (not is_folder) if re.search(r"\s", path) else f"@{path}"
    return Candidate(text, suffix="" if is_folder else " ")
