"""Asks MLX about this machine, in a child process: MLX is never imported here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from models.machine import read_machine
from models.memory_fit import Machine

DEVICE_TIMEOUT_S = 60.0


def ask_device() -> dict[str, Any] | None:
    """MLX's facts about this machine; None if MLX does not start."""
    command = [sys.executable, "-P", "-m", "mlx_engine.device"]
    try:
        run = subprocess.run(command, capture_output=True, timeout=DEVICE_TIMEOUT_S, check=True)
        facts = json.loads(run.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def machine_now(device: Mapping[str, Any] | None) -> Machine:
    """The machine; `device` is the result of `ask_device`, which knows the recommended working set."""
    return read_machine((device or {}).get("working_set_bytes"))
