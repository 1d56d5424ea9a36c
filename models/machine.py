"""This machine's chip and memory, as the system reports them. MLX is asked elsewhere, in a child process."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from models.memory_fit import Machine

GENERATIONS = {"M1": 13, "M2": 14, "M3": 15, "M4": 16, "M5": 17}
"""Apple's GPU generation by chip. From 15 on, MLX reads quantized weights once for several rows."""
SYSTEM_TIMEOUT_S = 5.0


def read_machine(working_set_bytes: int | None = None) -> Machine:
    """This machine's state now. `working_set_bytes`: what the device recommends, if it was asked."""
    chip, memory, free, usual = _read_mac() if platform.system() == "Darwin" else _read_linux()
    return Machine(
        chip=chip,
        memory_bytes=memory,
        working_set_bytes=working_set_bytes or usual,
        is_measured=working_set_bytes is not None,
        free_bytes=free,
    )


def estimated_working_set(memory_bytes: int) -> int:
    """A Mac's usual limit for the GPU, for when the device was not asked: two thirds of the memory.

    Larger Macs allow three quarters; the smaller share never promises too much.
    """
    return memory_bytes * 2 // 3


def gpu_generation(chip: str) -> int | None:
    """17 for `Apple M5 Max`, for example; None for other makers' chips."""
    match = re.search(r"\bM(\d+)\b", chip)
    return GENERATIONS.get(match[0]) if match else None


def _read_mac() -> tuple[str, int, int, int]:
    chip = _printed("sysctl", "-n", "machdep.cpu.brand_string") or "Apple silicon"
    memory = int(_printed("sysctl", "-n", "hw.memsize") or 0)
    usual = wired_limit_bytes() or estimated_working_set(memory)
    return chip, memory, mac_free_bytes(_printed("vm_stat")), usual


def wired_limit_bytes() -> int | None:
    """macOS's limit on wired GPU memory; 0 for the system's default, None where the setting does not exist."""
    mebibytes = _printed("sysctl", "-n", "iogpu.wired_limit_mb")
    return int(mebibytes) << 20 if mebibytes.isdecimal() else None


def mac_free_bytes(vm_stat: str) -> int:
    """Memory that is free or freed on demand, from the output of `vm_stat`."""
    page = re.search(r"page size of (\d+) bytes", vm_stat)
    counts = dict(re.findall(r"^Pages ([\w -]+):\s+(\d+)\.", vm_stat, re.MULTILINE))
    pages = sum(int(counts.get(kind, 0)) for kind in ("free", "inactive", "speculative", "purgeable"))
    return pages * int(page[1]) if page else 0


def _read_linux() -> tuple[str, int, int, int]:
    memory = meminfo(_text("/proc/meminfo"))
    total = memory.get("MemTotal", 0)
    model = re.search(r"^model name\s*: (.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    # Without a GPU, the memory itself is the only limit.
    return model[1] if model else platform.machine(), total, memory.get("MemAvailable", total), total


def meminfo(text: str) -> Mapping[str, int]:
    """Bytes by name, from the text of /proc/meminfo."""
    return {name: int(kib) << 10 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _printed(*command: str) -> str:
    """The output of a system command; empty if the command is missing or does not answer."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEM_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip()
