"""The Mac's own clipboard, for terminals that ignore OSC 52."""

from __future__ import annotations

import shutil
import subprocess

_PATIENCE_S = 2.0


def copy_with_pbcopy(text: str) -> bool:
    """Whether pbcopy is there and took the text."""
    command = shutil.which("pbcopy")
    if command is None:
        return False
    try:
        done = subprocess.run(
            [command],
            input=text.encode("utf-8"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
