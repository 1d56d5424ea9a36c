"""What of a process must not grow: memory, threads, open files; and whether it did."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at a process."""

    memory_bytes: int
    """Resident."""
    threads: int | None
    """None where the system does not say; likewise the files."""
    files: int | None


def give_back() -> None:
    """Let this process return what it has freed to the system, so that only what it holds is seen. A chat whose
    disk is full copies its database into memory, and the C library keeps those pages for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def look_at(process_id: int) -> Vitals:
    """Now."""
    run = subprocess.run(["ps", "-o", "rss=", "-p", str(process_id)], capture_output=True, text=True, check=True)
    folder = Path(f"/proc/{process_id}")
    has_folder = folder.is_dir()
    return Vitals(
        memory_bytes=int(run.stdout) * 1024,
        threads=len(list(folder.joinpath("task").iterdir())) if has_folder else None,
        files=len(list(folder.joinpath("fd").iterdir())) if has_folder else None,
    )


def growth_bytes(samples: Sequence[tuple[int, Vitals]]) -> float:
    """Memory per thousand turns: the median slope between all pairs of looks (Theil-Sen).

    samples: (turns done, vitals). The first half is left out: it fills caches that have a limit.
    """
    later = samples[len(samples) // 2 :]
    slopes = [
        (b.memory_bytes - a.memory_bytes) / (turn_b - turn_a)
        for at, (turn_a, a) in enumerate(later)
        for turn_b, b in later[at + 1 :]
    ]
    return 1000 * median(slopes) if slopes else 0.0


def faults(name: str, samples: Sequence[tuple[int, Vitals]], limit_bytes: float) -> list[str]:
    """What grew that should not have, in words."""
    found = []
    growth = growth_bytes(samples)
    if growth > limit_bytes:
        found.append(f"{name}: memory grows by {growth / MB:.2f} MB per 1,000 turns")
    later = [vitals for _, vitals in samples[len(samples) // 2 :]]
    for what in ("threads", "files"):
        counts = [count for vitals in later if (count := getattr(vitals, what)) is not None]
        if counts and counts[-1] > counts[0]:
            found.append(f"{name}: {what} go from {counts[0]} to {counts[-1]}")
    return found
