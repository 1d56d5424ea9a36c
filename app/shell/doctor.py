"""`slipstream doctor`: checks machine, memory, MLX, versions, terminal, disk and folders, with advice on problems.

Changes nothing. Asks MLX in a child process and never loads it here.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from app.settings.effective import read_settings
from app.settings.errors import SettingsError
from app.shell import report
from app.system import places
from app.system.console import is_terminal, say, say_json
from app.system.device import ask_device, machine_now
from app.system.exit_codes import OK
from app.system.mac import why_unusable
from app.system.privacy import impersonal
from app.text import figures
from mlx_engine.files.chat_cache_folder import ChatCacheFolder
from mlx_engine.protocol.errors import SlipstreamError
from models import hub_cache
from models.catalog import load_catalog
from models.machine import gpu_generation, wired_limit_bytes
from models.memory_fit import Machine

LITTLE_DISK_BYTES = 10_000_000_000
SMALL_MEMORY_BYTES = 8 << 30
FIRST_WIDE_GENERATION = 15
"""Since this GPU generation, MLX reads quantized weights once for several rows, so longer drafts are cheap."""
SMALLEST_TERMINAL = (60, 15)
PACKAGES = ("slipstream", "mlx", "mlx-lm", "textual", "huggingface_hub", "tokenizers", "transformers")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    topic: str
    what: str
    value: str
    advice: str = ""
    """What to do about a problem; empty if there is none."""


def add_parser(subparsers: Any) -> None:
    """Register `doctor`."""
    parser = subparsers.add_parser("doctor", help="check this machine and your setup, with advice on each problem")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    report.add_arguments(parser, form)
    parser.set_defaults(command=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Print the report. Returns 0 even if there are problems: finding them is not a failure."""
    if options.report:
        return report.run(options, *examined())
    device = ask_device()
    checks = _impersonal_checks(device)
    if options.json:
        say_json(
            json.dumps({"checks": rows(device, checks), "problems": sum(bool(check.advice) for check in checks)})
        )
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
    say(f"\n{problems} {'problem' if problems == 1 else 'problems'}, marked ->." if problems else "\nNo problems.")
    return OK


def examined() -> tuple[Mapping[str, Any] | None, Sequence[Mapping[str, str]]]:
    """What MLX says about this machine, and the checks, for a report."""
    device = ask_device()
    return device, rows(device)


def rows(device: Mapping[str, Any] | None, checks: Sequence[Check] | None = None) -> list[dict[str, str]]:
    """The checks for JSON; None: made now."""
    return [msgspec.to_builtins(check) for check in checks or _impersonal_checks(device)]


def _impersonal_checks(device: Mapping[str, Any] | None) -> list[Check]:
    # People are asked to send this.
    return [
        replace(check, value=impersonal(check.value), advice=impersonal(check.advice))
        for check in examine(device, os.environ)
    ]


def examine(device: Mapping[str, Any] | None, environment: Mapping[str, str]) -> Iterator[Check]:
    """All checks, grouped by topic."""
    yield from _machine(machine_now(device), device)
    yield from _versions()
    yield from _terminal(environment, shutil.get_terminal_size((0, 0)), is_terminal(sys.stdout))
    yield from _disk(hub_cache.cache_folder(), environment)
    yield from _settings()
    yield from _places()


def _machine(machine: Machine, device: Mapping[str, Any] | None) -> Iterator[Check]:
    topic, chip = "Machine", machine.chip
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield Check(topic, "system", system, why_unusable() or "")
    generation = gpu_generation(chip)
    advice = ""
    if generation is not None and generation < FIRST_WIDE_GENERATION:
        advice = "Long drafts are expensive on this GPU generation: use --draft auto, or start with --draft 2."
    yield Check(topic, "chip", chip + (f", GPU generation {generation}" if generation else ""), advice)
    yield from _memory(topic, machine)
    if device is None:
        yield Check(
            topic,
            "MLX device",
            "none",
            "MLX does not start. Run `pip install --upgrade mlx mlx-lm` and try again.",
        )
        return
    is_slow = platform.system() == "Darwin" and not device.get("is_metal")
    advice = "MLX runs on the CPU. Use a Python built for arm64, not one under Rosetta." if is_slow else ""
    yield Check(topic, "MLX device", f"{device.get('device')} ({device.get('name')})", advice)
    if not device.get("is_metal"):
        half = "models in bfloat16 or float16 are converted to float32 while loading (--float32 off: as stored)"
        yield Check(topic, "precision", half)


def _memory(topic: str, machine: Machine) -> Iterator[Check]:
    small = machine.memory_bytes < SMALL_MEMORY_BYTES
    advice = "Only the pocket model, and perhaps E2B in 4-bit, will run well." if small else ""
    yield Check(topic, "memory", figures.size(machine.memory_bytes).strip(), advice)
    low = machine.free_bytes < machine.working_set_bytes // 4
    advice = "Little memory is free. Close other programs before loading a large model." if low else ""
    yield Check(topic, "free now", figures.size(machine.free_bytes).strip(), advice)
    source = "measured by MLX" if machine.is_measured else "estimated"
    yield Check(topic, "for models", f"{figures.size(machine.working_set_bytes).strip()}, {source}")
    wired = wired_limit_bytes()
    if wired is not None:
        advice = ""
        if wired > machine.memory_bytes * 4 // 5:
            advice = "Above 80% of memory, the system may freeze. Run `sudo sysctl iogpu.wired_limit_mb=0`."
        value = "the system's default" if wired == 0 else figures.size(wired).strip()
        # Not the limit that --wire sets, which is MLX's own and ends with the engine.
        yield Check(topic, "GPU memory limit", f"{value} (iogpu.wired_limit_mb)", advice)


def _versions() -> Iterator[Check]:
    # Every start of the program imports this module, and this import takes as long as all of its others.
    from importlib.metadata import PackageNotFoundError, version

    yield Check("Versions", "python", platform.python_version())
    for name in PACKAGES:
        try:
            yield Check("Versions", name, version(name))
        except PackageNotFoundError:
            yield Check("Versions", name, "missing", f"Run `pip install {name}`, or install Slipstream again.")


def _terminal(environment: Mapping[str, str], size: os.terminal_size, is_terminal: bool) -> Iterator[Check]:
    topic, term = "Terminal", environment.get("TERM", "")
    advice = (
        "The chat runs line by line because of this TERM. In a full terminal: export TERM=xterm-256color"
        if term in ("", "dumb")
        else ""
    )
    if not is_terminal:
        advice = ""  # in a pipe it does not matter
    yield Check(topic, "TERM", term or "not set", advice)
    colours = environment.get("COLORTERM", "")
    plain = is_terminal and colours not in ("truecolor", "24bit")
    advice = "Theme colours are approximate. If your terminal has 24-bit colour: export COLORTERM=truecolor"
    yield Check(topic, "COLORTERM", colours or "not set", advice if plain else "")
    if "NO_COLOR" in environment:
        yield Check(topic, "NO_COLOR", "set: the chat has no colours")
    inside = [name for name, mark in (("tmux", "TMUX"), ("screen", "STY"), ("ssh", "SSH_CONNECTION")) if
              environment.get(mark)]  # fmt: skip
    advice = "For clipboard and full colour: `set -g set-clipboard on`, and a `tmux-256color` TERM with RGB."
    yield Check(topic, "inside", ", ".join(inside) or "nothing", advice if "tmux" in inside else "")
    columns, rows = size
    small = is_terminal and (columns < SMALLEST_TERMINAL[0] or rows < SMALLEST_TERMINAL[1])
    advice = f"Make the window at least {SMALLEST_TERMINAL[0]} by {SMALLEST_TERMINAL[1]}." if small else ""
    yield Check(topic, "size", f"{columns} x {rows}" if columns else "not a terminal", advice)
    encoding = locale.getpreferredencoding(False)
    advice = (
        "" if encoding.lower().replace("-", "") == "utf8" else "Use a UTF-8 locale: `export LANG=en_US.UTF-8`."
    )
    yield Check(topic, "locale", encoding, advice)


def _disk(cache: Path, environment: Mapping[str, str]) -> Iterator[Check]:
    topic = "Disk"
    folder = next(path for path in (cache, *cache.parents) if os.path.isdir(path))
    free = shutil.disk_usage(folder).free
    little = free < LITTLE_DISK_BYTES
    advice = "Most models need more. Remove one with `slipstream models rm`, or set HF_HOME to another disk."
    yield Check(topic, "free", figures.size(free).strip(), advice if little else "")
    yield _folder(topic, "hub cache", cache)
    yield _chat_cache(topic)
    try:
        yield from _models(topic, cache)
    except SlipstreamError as error:
        yield Check(topic, "Gemma 4 models", "not known", str(error))
    if name := hub_cache.offline_variable(environment):
        yield Check(topic, name, environment[name], "Models cannot be pulled while it is set.")


def _chat_cache(topic: str) -> Check:
    folder = ChatCacheFolder(places.chat_cache_folder())
    chats, taken = folder.chats(), figures.size(folder.size_bytes).strip()
    return Check(topic, "chat cache", f"{len(chats)} chats, {taken} ({folder.folder})" if chats else "empty")


def _models(topic: str, cache: Path) -> Iterator[Check]:
    snapshots = hub_cache.installed(cache)
    repos = sorted({one.repo for one in snapshots})
    total = sum(hub_cache.size_on_disk(cache, repo)[0] for repo in repos)
    yield Check(topic, "Gemma 4 models", f"{len(repos)}, {figures.size(total).strip()}")
    for one in snapshots:
        if not one.is_complete:
            yield Check(topic, one.repo, "incomplete", f"Run `slipstream models pull {one.repo}` to complete it.")


def _folder(topic: str, what: str, folder: Path) -> Check:
    """Whether a folder can be written, or created if it does not exist yet."""
    nearest = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not nearest.is_dir():
        advice = f"{nearest} is not a folder. Move it away."
    elif not _can_be_written(nearest):
        advice = f"{nearest} cannot be written. Change its owner or permissions, or what is mounted there."
    else:
        advice = ""
    return Check(topic, what, str(folder), advice)


def _can_be_written(folder: Path) -> bool:
    """Tries it, because a file system can refuse what the permissions allow."""
    try:
        with tempfile.TemporaryDirectory(prefix=".slipstream-", dir=folder):
            return True
    except OSError:
        return False


def _settings() -> Iterator[Check]:
    path = places.config_file()
    location = str(path) if path.exists() else f"none ({path})"
    try:
        problems = read_settings().warnings
    except SettingsError as error:
        problems = tuple(str(error).splitlines())
    for problem in problems or ("",):
        yield Check("Settings", "settings", location, problem)


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
