"""What a Mac needs for MLX, in sentences: without them, `import mlx` fails with words that do not help."""

from __future__ import annotations

import platform
import subprocess

FIRST_MACOS = 14
"""MLX's wheels are for macOS 14 and later, on arm64 (their tags on pypi.org)."""
COMPATIBLE = "10.16"
"""What macOS tells programs that were built for an early one; the real version is then unknown."""
SYSTEM_TIMEOUT_S = 5.0


def why_unusable() -> str | None:
    """What is wrong with this system or Python, and what to do; None: nothing, as far as is known."""
    if platform.system() != "Darwin":
        return None
    machine = platform.machine()
    return why_unusable_mac(machine, platform.mac_ver()[0], machine != "arm64" and _is_translated())


def why_unusable_mac(machine: str, version: str, is_translated: bool) -> str | None:
    """The same for a Mac. version: such as `14.6.1`. is_translated: this Python runs under Rosetta."""
    if machine != "arm64":
        if not is_translated:
            return "Slipstream needs a Mac with Apple silicon: MLX does not run on this one's Intel processor."
        return (
            "This Python is built for Intel and runs under Rosetta, where MLX does not work. Install Python 3.11 "
            "or newer for Apple silicon (from python.org, or with Homebrew in /opt/homebrew), and install "
            "Slipstream with it in a new environment."
        )
    number = version.partition(".")[0]
    if version.startswith(COMPATIBLE) or not number.isdecimal() or int(number) >= FIRST_MACOS:
        return None
    return f"MLX needs macOS {FIRST_MACOS} or later, and this is macOS {version}. Update macOS."


def _is_translated() -> bool:
    try:
        run = subprocess.run(
            ["sysctl", "-n", "sysctl.proc_translated"],
            capture_output=True,
            text=True,
            timeout=SYSTEM_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.stdout.strip() == "1"
