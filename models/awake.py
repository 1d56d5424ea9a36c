"""Keeps a Mac from falling asleep while something long runs."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CAFFEINATE = "caffeinate"
"""macOS's own tool. -i: no idle sleep; -w: until this process has ended, however it ends."""


@contextmanager
def staying_awake(process_id: int) -> Iterator[None]:
    """While open and the process runs, a Mac does not sleep because nobody types; nothing on other systems."""
    program = shutil.which(CAFFEINATE) if platform.system() == "Darwin" else None
    keeper: subprocess.Popen[bytes] | None = None
    if program:
        with suppress(OSError):
            keeper = subprocess.Popen(
                [program, "-i", "-w", str(process_id)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # the terminal's ctrl+c is not meant for it
            )
    try:
        yield
    finally:
        if keeper:
            keeper.terminate()
            keeper.wait()
