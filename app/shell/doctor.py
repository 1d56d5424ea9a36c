"""`slipstream doctor`: machine, memory, MLX, versions, terminal, disk and caches; for each problem what to do.

Changes nothing, and asks MLX in a child process: this one never loads it.
"""

from __future__ import annotations

import argparse
import json
import locale
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from app.settings.effective import read_settings
from app.settings.errors import SettingsError
from app.system import places
from app.system.console import say, say_json
from app.system.device import ask_device, machine_now
from app.system.exit_codes import OK
from app.text import figures
from mlx_engine.protocol.errors import SlipstreamError
from models import hub_cache
from models.catalog import load_catalog
from models.machine import gpu_generation, wired_limit_bytes
from models.memory_fit import Machine

LITTLE_DISK_BYTES = 10_000_000_000
SMALL_MEMORY_BYTES = 8 << 30
FIRST_WIDE_GENERATION = 15
"""From here on MLX reads quantized weights once for several rows, which is what makes longer drafts cheap."""
SMALLEST_TERMINAL = (60, 15)
PACKAGES = ("slipstream", "mlx", "mlx-lm", "textual", "huggingface_hub", "tokenizers", "transformers")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    topic: str
    what: str
    value: str
    advice: str = ""
    """What to do about it; empty if all is well."""


def add_parser(subparsers: Any) -> None:
    """Register `doctor`."""
    parser = subparsers.add_parser(
        "doctor", help="say what this machine can do, and what to do about each problem"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Print the report; 0 also if there are problems, for they are the answer and not a failure."""
    device = ask_device()
    checks = list(examine(device, os.environ))
    if options.json:
        rows = [msgspec.to_builtins(check) for check in checks]
        say_json(json.dumps({"checks": rows, "problems": sum(bool(check.advice) for check in checks)}))
        return OK
    topic = ""
    for check in checks:
        if check.topic != topic:
            topic = check.topic
            say(topic)
        say(f"  {check.what:<18} {check.value}")
        if check.advice:
            say(f"  {'':<18} -> {check.advice}")
    problems = sum(bool(check.advice) for check in checks)
    say(f"\n{problems} to look at, marked ->." if problems else "\nAll is well.")
    return OK


def examine(device: Mapping[str, Any] | None, environment: Mapping[str, str]) -> Iterator[Check]:
    """All checks, topic by topic."""
    yield from _machine(machine_now(device), device)
    yield from _versions()
    yield from _terminal(environment, shutil.get_terminal_size((0, 0)), sys.stdout.isatty())
    yield from _disk(hub_cache.cache_folder(), environment)
    yield from _settings()
    yield from _places()


def _machine(machine: Machine, device: Mapping[str, Any] | None) -> Iterator[Check]:
    topic, chip = "Machine", machine.chip
    yield Check(topic, "system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    generation = gpu_generation(chip)
    advice = ""
    if generation is not None and generation < FIRST_WIDE_GENERATION:
        advice = "Long drafts cost more on this GPU generation: let the draft length adapt, or begin with 2."
    yield Check(topic, "chip", chip + (f", GPU generation {generation}" if generation else ""), advice)
    yield from _memory(topic, machine)
    if device is None:
        yield Check(
            topic, "MLX device", "none", "MLX does not start. `pip install --upgrade mlx mlx-lm`, then again."
        )
        return
    is_slow = platform.system() == "Darwin" and not device.get("is_metal")
    advice = "MLX runs on the CPU: use a Python for arm64, not one under Rosetta." if is_slow else ""
    yield Check(topic, "MLX device", f"{device.get('device')} ({device.get('name')})", advice)


def _memory(topic: str, machine: Machine) -> Iterator[Check]:
    small = machine.memory_bytes < SMALL_MEMORY_BYTES
    advice = "Only the pocket model and perhaps E2B in 4-bit will run well." if small else ""
    yield Check(topic, "memory", figures.size(machine.memory_bytes).strip(), advice)
    low = machine.free_bytes < machine.working_set_bytes // 4
    advice = "Little of it is free: close other programs before loading a large model." if low else ""
    yield Check(topic, "free now", figures.size(machine.free_bytes).strip(), advice)
    source = "as the device says" if machine.is_measured else "estimated"
    yield Check(topic, "for models", f"{figures.size(machine.working_set_bytes).strip()}, {source}")
    wired = wired_limit_bytes()
    if wired is not None:
        advice = ""
        if wired > machine.memory_bytes * 4 // 5:
            advice = "Above four fifths of the memory the system may freeze: `sudo sysctl iogpu.wired_limit_mb=0`."
        yield Check(topic, "wired limit", "the system's default" if wired == 0 else figures.size(wired), advice)


def _versions() -> Iterator[Check]:
    # Every start of the program comes by this module, and this import takes as long as all others of it.
    from importlib.metadata import PackageNotFoundError, version

    yield Check("Versions", "python", platform.python_version())
    for name in PACKAGES:
        try:
            yield Check("Versions", name, version(name))
        except PackageNotFoundError:
            yield Check("Versions", name, "missing", f"`pip install {name}`, or install Slipstream again.")


def _terminal(environment: Mapping[str, str], size: os.terminal_size, is_terminal: bool) -> Iterator[Check]:
    topic, term = "Terminal", environment.get("TERM", "")
    drawing = "so the chat goes line by line. In a terminal that can draw: export TERM=xterm-256color"
    advice = f"This terminal can only print, {drawing}" if term in ("", "dumb") else ""
    if not is_terminal:
        advice = ""  # a pipe needs none of it
    yield Check(topic, "TERM", term or "not set", advice)
    colours = environment.get("COLORTERM", "")
    plain = is_terminal and colours not in ("truecolor", "24bit")
    advice = "Themes are approximated; 24-bit colour, or COLORTERM=truecolor where that is not said, shows them."
    yield Check(topic, "COLORTERM", colours or "not set", advice if plain else "")
    if "NO_COLOR" in environment:
        yield Check(topic, "NO_COLOR", "set: no colours")
    inside = [name for name, mark in (("tmux", "TMUX"), ("screen", "STY"), ("ssh", "SSH_CONNECTION")) if
              environment.get(mark)]  # fmt: skip
    advice = "For the clipboard and full colour: `set -g set-clipboard on` and a `tmux-256color` TERM with RGB."
    yield Check(topic, "inside", ", ".join(inside) or "nothing", advice if "tmux" in inside else "")
    columns, rows = size
    small = is_terminal and (columns < SMALLEST_TERMINAL[0] or rows < SMALLEST_TERMINAL[1])
    advice = f"Make it at least {SMALLEST_TERMINAL[0]} by {SMALLEST_TERMINAL[1]}." if small else ""
    yield Check(topic, "size", f"{columns} x {rows}" if columns else "not a terminal", advice)
    encoding = locale.getpreferredencoding(False)
    advice = (
        "" if encoding.lower().replace("-", "") == "utf8" else "Choose a UTF-8 locale: `export LANG=en_US.UTF-8`."
    )
    yield Check(topic, "locale", encoding, advice)


def _disk(cache: Path, environment: Mapping[str, str]) -> Iterator[Check]:
    topic = "Disk"
    place = next(path for path in (cache, *cache.parents) if os.path.isdir(path))
    free = shutil.disk_usage(place).free
    little = free < LITTLE_DISK_BYTES
    advice = "Most variants need more. `slipstream models rm` makes room, or set HF_HOME to another disk."
    yield Check(topic, "free", figures.size(free).strip(), advice if little else "")
    yield _folder(topic, "hub cache", cache)
    try:
        yield from _models(topic, cache)
    except SlipstreamError as error:
        yield Check(topic, "Gemma 4 models", "not known", str(error))
    if name := hub_cache.offline_variable(environment):
        yield Check(topic, name, environment[name], "Nothing can be fetched while it is set.")


def _models(topic: str, cache: Path) -> Iterator[Check]:
    snapshots = hub_cache.installed(cache)
    repos = sorted({one.repo for one in snapshots})
    total = sum(hub_cache.size_on_disk(cache, repo)[0] for repo in repos)
    yield Check(topic, "Gemma 4 models", f"{len(repos)}, {figures.size(total).strip()}")
    for one in snapshots:
        if not one.is_complete:
            yield Check(topic, one.repo, "not complete", f"`slipstream models pull {one.repo}` goes on with it.")


def _folder(topic: str, what: str, folder: Path) -> Check:
    """Whether a folder can be written, or made where it is not there yet."""
    place = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not place.is_dir():
        advice = f"{place} is not a folder: move it away."
    elif not _can_be_written(place):
        advice = f"{place} cannot be written: change its owner, or what is mounted there."
    else:
        advice = ""
    return Check(topic, what, str(folder), advice)


def _can_be_written(folder: Path) -> bool:
    """Tried, not asked: what the rights allow, a file system may still refuse."""
    try:
        with tempfile.TemporaryDirectory(prefix=".slipstream-", dir=folder):
            return True
    except OSError:
        return False


def _settings() -> Iterator[Check]:
    path = places.config_file()
    place = str(path) if path.exists() else f"none ({path})"
    try:
        problems = read_settings().warnings
    except SettingsError as error:
        problems = tuple(str(error).splitlines())
    for problem in problems or ("",):
        yield Check("Settings", "settings", place, problem)


def _places() -> Iterator[Check]:
    yield _folder("Places", "state and logs", places.state_folder())
    yield _folder("Places", "chats", places.data_folder())
    own = places.own_catalog()
    try:
        load_catalog(own)
    except SlipstreamError as error:
        yield Check("Places", "own catalog", str(own), str(error))
    else:
        yield Check("Places", "own catalog", str(own) if own.exists() else f"none ({own})")
