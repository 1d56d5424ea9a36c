"""Where Slipstream keeps what it writes."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """State and logs: `$SLIPSTREAM_HOME/state`, else `$XDG_STATE_HOME/slipstream`, else the usual dot folder."""
    home = os.environ.get("SLIPSTREAM_HOME")
    if home:
        return Path(home).expanduser() / "state"
    base = os.environ.get("XDG_STATE_HOME")
    return Path(base) / "slipstream" if base else Path.home() / ".local" / "state" / "slipstream"


def engine_log() -> Path:
    """What the engine's process prints."""
    return state_folder() / "engine.log"


def app_log() -> Path:
    """What a crash of the chat leaves behind."""
    return state_folder() / "slipstream.log"


def estimates_folder() -> Path:
    """What the engine learned about draft lengths, a file per pair."""
    return state_folder() / "estimates"
