"""Where Slipstream keeps what it writes. Everything here raises PathError if SLIPSTREAM_HOME cannot be a path."""

from __future__ import annotations

import os
from pathlib import Path

from models import hub_cache, pocket
from models.paths import expanded


def everything() -> dict[str, Path]:
    """Whatever is kept anywhere, by what it is called."""
    return {
        "pocket": pocket.TARGET_FOLDER.parent,
        "models": hub_cache.cache_folder(),
        "settings": config_file(),
        "own catalog": own_catalog(),
        "chats": chats_database(),
        "state": state_file(),
        "prompts": prompt_history(),
        "estimates": estimates_folder(),
        "bench": bench_folder(),
        "engine log": engine_log(),
        "crash log": app_log(),
    }


def state_folder() -> Path:
    """State and logs: `$SLIPSTREAM_HOME/state`, else `$XDG_STATE_HOME/slipstream`, else the usual dot folder."""
    return _folder("state", "XDG_STATE_HOME", ".local/state")


def data_folder() -> Path:
    """What a person would miss: `$SLIPSTREAM_HOME/data`, else `$XDG_DATA_HOME/slipstream`, else the dot folder."""
    return _folder("data", "XDG_DATA_HOME", ".local/share")


def config_folder() -> Path:
    """What a person writes: `$SLIPSTREAM_HOME/config`, else `$XDG_CONFIG_HOME/slipstream`, else the dot folder."""
    return _folder("config", "XDG_CONFIG_HOME", ".config")


def own_catalog() -> Path:
    """Models that a person adds to the catalog, or sees otherwise."""
    return config_folder() / "catalog.yaml"


def config_file() -> Path:
    """A person's settings, which nothing here ever writes."""
    return config_folder() / "config.yaml"


def state_file() -> Path:
    """What the app itself remembers from run to run."""
    return state_folder() / "state.json"


def chats_database() -> Path:
    """All conversations."""
    return data_folder() / "chats.db"


def engine_log() -> Path:
    """What the engine's process prints."""
    return state_folder() / "engine.log"


def app_log() -> Path:
    """What a crash of the chat leaves behind."""
    return state_folder() / "slipstream.log"


def prompt_history() -> Path:
    """What was typed into the chat, for the up key."""
    return state_folder() / "prompt_history.jsonl"


def estimates_folder() -> Path:
    """What the engine learned about draft lengths, a file per pair."""
    return state_folder() / "estimates"


def bench_folder() -> Path:
    """What `slipstream bench` measured, a file per run, by machine and pair."""
    return data_folder() / "bench"


def _folder(name: str, variable: str, usual: str) -> Path:
    home = os.environ.get("SLIPSTREAM_HOME")
    if home:
        return expanded(home) / name
    base = os.environ.get(variable)
    return Path(base) / "slipstream" if base else Path.home() / usual / "slipstream"
