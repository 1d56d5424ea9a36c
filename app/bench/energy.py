"""Energy from the processor's own counters, where every user may read them.

Linux: the RAPL counters of the packages under /sys/class/powercap, which many systems reserve for root. macOS
shows such figures to root only (powermetrics). The counters include everything that runs on the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter(Protocol):
    """Reads energy counters in joules."""

    def read_j(self) -> tuple[float, ...] | None:
        """The counters now; None if none can be read."""
        ...

    def used_j(self, before: tuple[float, ...] | None) -> float | None:
        """Joules since `before` was read; None if unknown."""
        ...


class NoMeter:
    """Where nothing can be measured."""

    def read_j(self) -> None:
        """Always None."""

    def used_j(self, before: tuple[float, ...] | None) -> None:
        """Always None."""


class RaplMeter:
    """The processor packages of a Linux machine; no counters elsewhere."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        # Packages are intel-rapl:0, intel-rapl:1 (on AMD too); intel-rapl:0:0 is a part of the first.
        zones = sorted(folder.glob("intel-rapl:*")) if folder.is_dir() else []
        packages = [
            zone for zone in zones if zone.name.count(":") == 1 and _reading(zone / "energy_uj") is not None
        ]
        self._counters: Sequence[Path] = [zone / "energy_uj" for zone in packages]
        self._ranges_j = [_reading(zone / "max_energy_range_uj") or 0.0 for zone in packages]

    def read_j(self) -> tuple[float, ...] | None:
        readings = [_reading(counter) for counter in self._counters]
        known = tuple(reading for reading in readings if reading is not None)
        return known if known and len(known) == len(readings) else None

    def used_j(self, before: tuple[float, ...] | None) -> float | None:
        after = self.read_j()
        if before is None or after is None:
            return None
        used = 0.0
        for was, now, span in zip(before, after, self._ranges_j):
            used += now - was if now >= was else now - was + span  # the counter wrapped around
        return used


def _reading(counter: Path) -> float | None:
    try:
        return int(counter.read_text()) / 1e6
    except (OSError, ValueError):
        return None
