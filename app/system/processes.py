"""Tells whether a process still runs, also when its id has been given to another one."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

_STATE, _START = 0, 19
"""Positions in /proc/PID/stat after the name, which ends with the last bracket."""


@cache
def this_machine() -> str:
    """Where process ids mean the same: the machine, and on Linux the namespace of its process ids."""
    with suppress(OSError):
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    return platform.node()


def start_of(process_id: int) -> str | None:
    """When a process of this machine began, as an opaque text; None if it has ended."""
    try:
        # The name of a program can contain any byte.
        stat = Path(f"/proc/{process_id}/stat").read_bytes().decode("utf-8", "replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _start_by_ps(process_id)
    fields = stat[stat.rfind(")") + 2 :].split()
    return None if fields[_STATE] in "ZX" else f"{boot} {fields[_START]}"


def _start_by_ps(process_id: int) -> str | None:
    environment = {**os.environ, "LC_ALL": "C"}
    command = ["ps", "-o", "stat=,lstart=", "-p", str(process_id)]
    try:
        output = subprocess.run(command, capture_output=True, check=False, text=True, env=environment).stdout
    except OSError:
        return None
    state, _, start = output.strip().partition(" ")
    return None if not start or state.startswith("Z") else " ".join(start.split())
