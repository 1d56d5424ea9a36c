"""Removes the person's name and home from texts that people are asked to send."""

from __future__ import annotations

import getpass
import os
import re
from contextlib import suppress
from pathlib import Path

NAME = "USER"
"""Stands for the person's name in a path."""


def impersonal(text: str) -> str:
    """The text with ~ for the home folder, and `NAME` for the person's name in other paths."""
    names: set[str] = set()
    with suppress(RuntimeError):
        home = Path.home()
        for folder in sorted({os.fspath(home), os.path.realpath(home)}, key=len, reverse=True):
            if folder != os.sep:
                text = re.sub(rf"(?<![\w.~/-]){re.escape(folder)}(?![\w.-])", "~", text)
                names.add(os.path.basename(folder))
    with suppress(OSError, KeyError, ImportError):
        names.add(getpass.getuser())
    for name in filter(None, names):
        text = re.sub(rf"(?<=/){re.escape(name)}(?![\w.-])", NAME, text)
    return text
