"""The macOS clipboard, for terminals that ignore OSC 52."""

from __future__ import annotations

import os
import shutil
import subprocess

_PATIENCE_S = 2.0


def copy_with_pbcopy(text: str) -> bool:
    """Copy with pbcopy. Returns whether that worked."""
    command = shutil.which("pbcopy")
    if command is None:
        return False
    try:
        done = subprocess.run(
            [command],
            input=text.encode("utf-8"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # pbcopy decodes its input with the locale, which can be anything over ssh or in tmux.
            env={**os.environ, "LC_ALL": "en_US.UTF-8"},
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
