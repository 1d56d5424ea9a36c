"""The machine and its state before and after a run; only facts that need no privileges."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.bench.results import MachineFacts, MachineState
from models.machine import read_machine

SYSTEM_TIMEOUT_S = 5.0
PACKAGES = ("mlx", "mlx-lm")
MAC_PRESSURE = {"1": "normal", "2": "warning", "4": "critical"}
THERMAL_NOTIFICATION = "com.apple.system.thermalpressurelevel"
THERMAL_LEVELS = {"0": "nominal", "1": "moderate", "2": "heavy", "3": "trapping", "4": "sleeping"}
"""kOSThermalPressureLevel... of macOS's libkern/OSThermalNotification.h."""

ReadText = Callable[[str], str]
"""Returns the text of a file or the output of a command; empty if there is none."""


def machine_facts() -> MachineFacts:
    """The facts that do not change during a run."""
    machine = read_machine()
    preloaded = [Path(name).name for name in re.split(r"[ :]+", os.environ.get("LD_PRELOAD", "")) if name]
    return MachineFacts(
        chip=machine.chip,
        memory_bytes=machine.memory_bytes,
        system=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count() or 1,
        versions={name: _version(name) for name in PACKAGES} | {"python": platform.python_version()},
        preloaded=" ".join(preloaded) or None,
    )


def machine_state() -> MachineState:
    """The state of the machine now."""
    if platform.system() == "Darwin":
        pressure, power, thermal = mac_state(_printed)
    else:
        pressure, power, thermal = linux_state(Path("/"))
    return MachineState(
        load=_load(), free_bytes=read_machine().free_bytes, memory_pressure=pressure, power=power, thermal=thermal
    )


def mac_state(printed: ReadText) -> tuple[str | None, str | None, str | None]:
    """Memory pressure, power source and thermal state, from the output of macOS's own tools."""
    level = printed("sysctl -n kern.memorystatus_vm_pressure_level").strip()
    source = re.search(r"Now drawing from '([^']+)'", printed("pmset -g batt"))
    power = source[1] if source else None
    mode = re.search(r"^\s*(?:low)?powermode\s+([12])\s*$", printed("pmset -g"), re.MULTILINE)
    if power and mode:
        power += ", low power mode" if mode[1] == "1" else ", high power mode"
    return MAC_PRESSURE.get(level), power, _mac_thermal(printed)


def _mac_thermal(printed: ReadText) -> str:
    """Apple silicon reports no CPU_Speed_Limit, but a notification that everybody may read."""
    pressure = re.search(r"thermalpressurelevel\s+(\d+)", printed(f"notifyutil -g {THERMAL_NOTIFICATION}"))
    if pressure and pressure[1] in THERMAL_LEVELS:
        return f"thermal pressure {THERMAL_LEVELS[pressure[1]]}"
    limit = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", printed("pmset -g therm"))
    return f"CPU speed limit {limit[1]}%" if limit else "thermal pressure not known"


def linux_state(root: Path) -> tuple[str | None, str | None, str | None]:
    """Memory pressure, power source and the hottest sensor, from the kernel's files."""
    stalled = re.search(r"^some avg10=([\d.]+)", _text(root / "proc/pressure/memory"), re.MULTILINE)
    pressure = f"stalled {float(stalled[1]):g}% of the last 10 s" if stalled else None
    supplies = sorted((root / "sys/class/power_supply").glob("*"))
    kinds = {_text(supply / "type").strip(): _text(supply / "online").strip() for supply in supplies}
    power = None
    if "Mains" in kinds:
        power = "mains" if kinds["Mains"] == "1" else "battery"
    sensors = (root / "sys/class/thermal").glob("thermal_zone*/temp")
    degrees = [int(text) / 1000 for text in (_text(sensor).strip() for sensor in sensors) if text.isdecimal()]
    return pressure, power, f"{max(degrees):.0f} °C" if degrees else None


def state_text(state: MachineState) -> str:
    """The known parts of a state, on one line."""
    parts = []
    if state.load is not None:
        parts.append(f"load {state.load:.1f}")
    if state.free_bytes is not None:
        parts.append(f"{state.free_bytes / 1e9:.1f} GB free")
    if state.memory_pressure:
        parts.append(f"memory {state.memory_pressure}")
    return ", ".join([*parts, *(part for part in (state.power, state.thermal) if part)]) or "unknown"


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _printed(command: str) -> str:
    try:
        run = subprocess.run(
            command.split(), capture_output=True, text=True, timeout=SYSTEM_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout
