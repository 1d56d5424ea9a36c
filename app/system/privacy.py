"""Removes the names of person, home and machine from texts that people are asked to send."""

from __future__ import annotations

import getpass
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

NAME = "USER"
"""Stands for the person's name."""
HOST = "HOST"
"""Stands for the machine's name."""
SHORTEST_NAME = 3
"""Characters of a name that is replaced wherever it is a word."""


def impersonal(text: str) -> str:
    """The text with ~ for the home folder, and `NAME` for the person's name in other paths."""
    for folder in _homes():
        text = re.sub(rf"(?<![\w.~/-]){re.escape(folder)}(?![\w.-])", "~", text)
    for name in _person_names():
        text = re.sub(rf"(?<=/){re.escape(name)}(?![\w.-])", NAME, text)
    return text


def nameless(text: str) -> str:
    """The impersonal text, also without the names of person and machine where they are words by themselves."""
    text = impersonal(text)
    for names, substitute in ((_host_names(), HOST), (_person_names(), NAME)):
        for name in sorted(names, key=len, reverse=True):
            if len(name) >= SHORTEST_NAME:
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", substitute, text, flags=re.IGNORECASE)
    return text


def _homes() -> list[str]:
    """The home folder as it is named, and where it is; the longer one first."""
    with suppress(RuntimeError):
        home = Path.home()
        folders = {os.fspath(home), os.path.realpath(home)} - {os.sep}
        return sorted(folders, key=len, reverse=True)
    return []


def _person_names() -> set[str]:
    names = {os.path.basename(folder) for folder in _homes()}
    with suppress(OSError, KeyError, ImportError):
        names.add(getpass.getuser())
    return set(filter(None, names))


def _host_names() -> set[str]:
    """With and without its domain."""
    name = socket.gethostname()
    return {name, name.split(".")[0]} - {"", "localhost"}
