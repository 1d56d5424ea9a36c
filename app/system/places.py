"""Where Slipstream stores its files.

Everything here raises PathError if SLIPSTREAM_HOME is not a valid path, or if there is no home folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from models import hub_cache, pocket
from models.paths import expanded, home_folder, in_utf8


def everything() -> dict[str, Path]:
    """All locations, by the name that `slipstream paths` shows."""
    return {
        "pocket": pocket.TARGET_FOLDER.parent,
        "models": hub_cache.cache_folder(),
        "settings": config_file(),
        "own catalog": own_catalog(),
        "chats": chats_database(),
        "state": state_file(),
        "prompts": prompt_history(),
        "estimates": estimates_folder(),
        "chat cache": chat_cache_folder(),
        "bench": bench_folder(),
        "server": server_file(),
        "engine log": engine_log(),
        "crash log": app_log(),
    }


def state_folder() -> Path:
    """State and logs. `$SLIPSTREAM_HOME/state`, or `slipstream` in `$XDG_STATE_HOME` (`~/.local/state`)."""
    return _folder("state", "XDG_STATE_HOME", ".local/state")


def data_folder() -> Path:
    """Chats and results. `$SLIPSTREAM_HOME/data`, or `slipstream` in `$XDG_DATA_HOME` (`~/.local/share`)."""
    return _folder("data", "XDG_DATA_HOME", ".local/share")


def config_folder() -> Path:
    """Written by people. `$SLIPSTREAM_HOME/config`, or `slipstream` in `$XDG_CONFIG_HOME` (`~/.config`)."""
    return _folder("config", "XDG_CONFIG_HOME", ".config")


def own_catalog() -> Path:
    """A person's additions and changes to the catalog."""
    return config_folder() / "catalog.yaml"


def config_file() -> Path:
    """A person's settings. Slipstream never writes this file."""
    return config_folder() / "config.yaml"


def state_file() -> Path:
    """What the app remembers from run to run."""
    return state_folder() / "state.json"


def chats_database() -> Path:
    """All stored chats."""
    return data_folder() / "chats.db"


def engine_log() -> Path:
    """Output of the engine's process."""
    return state_folder() / "engine.log"


def app_log() -> Path:
    """Tracebacks of crashes of the chat."""
    return state_folder() / "slipstream.log"


def server_file() -> Path:
    """Where `slipstream serve` runs, while it does."""
    return state_folder() / "server.json"


def prompt_history() -> Path:
    """Prompts typed in the chat, for the up key."""
    return state_folder() / "prompt_history.jsonl"


def open_chats() -> Path:
    """Locks that show which chats are open in a running chat."""
    return data_folder() / "open_chats.lock"


def estimates_folder() -> Path:
    """The engine's estimates for draft lengths, one file per pair."""
    return state_folder() / "estimates"


def chat_cache_folder() -> Path:
    """What the engine has read of chats, so that a reopened one answers at once."""
    return state_folder() / "chat_cache"


def bench_folder() -> Path:
    """Results of `slipstream bench`, one file per run, by machine and pair."""
    return data_folder() / "bench"


def _folder(name: str, variable: str, usual: str) -> Path:
    home = os.environ.get("SLIPSTREAM_HOME")
    if home:
        return in_utf8(expanded(home) / name)
    base = os.environ.get(variable)
    return in_utf8((Path(base) if base else home_folder() / usual) / "slipstream")
