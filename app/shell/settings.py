"""`slipstream settings`: prints all settings with the source of each value, or an example settings file."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from app.settings.effective import EffectiveSettings, read_settings
from app.settings.flags import add_flags, typed_values
from app.settings.remembered import RememberedChoices
from app.settings.table import Setting, table
from app.system import places
from app.system.console import say, say_json
from app.system.exit_codes import OK
from app.text.sanitise import sanitise_line

WIDTH = 100
NAME_CELLS, VALUE_CELLS = 19, 44
KEYS_EXAMPLE = ("draft: ctrl+x", "copy: [ctrl+y, f9]")


def add_parser(subparsers: Any) -> None:
    """Register `settings`."""
    parser = subparsers.add_parser("settings", help="show all settings and where their values come from")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--example", action="store_true", help="print an example file with every setting")
    add_flags(parser)
    parser.set_defaults(command=settings)


def settings(options: argparse.Namespace) -> int:
    """Print the settings. Raises SettingsError if some cannot be used."""
    if options.example:
        say("\n".join(example()))
        return OK
    state = RememberedChoices.read(places.state_file())
    effective = read_settings(typed_values(options), state.as_settings())
    if options.json:
        say_json(json.dumps(_as_json(effective), ensure_ascii=False))
        return OK
    missing = "" if effective.path.exists() else "  (does not exist; `slipstream settings --example` prints one)"
    say(f"{effective.path}{missing}\n")
    values = asdict(effective.settings)
    for name, setting in table().items():
        value, source = sanitise_line(setting.display_text(values[name])), effective.sources[name]
        # Values are never shortened: two long paths could then look the same.
        gap = " " if len(value) <= VALUE_CELLS else "\n" + " " * (NAME_CELLS + VALUE_CELLS + 2)
        say(f"{name:<{NAME_CELLS}} {value:<{VALUE_CELLS}}{gap}{source}")
    for warning in effective.warnings:
        say(f"\n{warning}")
    return OK


def _as_json(effective: EffectiveSettings) -> dict[str, Any]:
    values = asdict(effective.settings)
    return {
        "file": str(effective.path),
        "is_there": effective.path.exists(),
        "settings": {
            name: {
                "value": values[name],
                "from": effective.sources[name],
                "default": setting.default,
                "allowed": setting.info.kind.allowed if setting.info.kind else None,
                "variable": setting.variable or None,
                "flag": setting.flag or None,
            }
            for name, setting in table().items()
        },
        "warnings": list(effective.warnings),
    }


def example() -> Iterator[str]:
    """The lines of a settings file with every setting, each commented out."""
    yield "## Settings of Slipstream. This file is yours: Slipstream never changes it."
    yield "## To set a value, remove the # in front of its line. Environment variables override this file, and"
    yield "## flags override both. Everything that is not set has its default."
    for setting in table().values():
        yield ""
        yield from _comment(setting)
        if setting.info.kind is None:
            yield f"# {setting.name}:"
            yield from (f"#   {line}" for line in KEYS_EXAMPLE)
        else:
            value = setting.info.example or setting.display_text(setting.default)
            yield f"# {setting.name}: {value}"


def _comment(setting: Setting) -> Iterator[str]:
    kind = setting.info.kind
    text = f"{setting.info.help[:1].upper()}{setting.info.help[1:]}."
    if kind:
        default = setting.display_text(setting.default)
        text += f" Takes {kind.allowed}; default: {default}. Also {' or '.join(_elsewhere(setting))}."
    else:
        text += f" One line per action, as listed in the help (f1); default: {setting.info.unset}."
    yield from textwrap.wrap(text, WIDTH, initial_indent="## ", subsequent_indent="## ", break_on_hyphens=False)


def _elsewhere(setting: Setting) -> Iterator[str]:
    yield setting.variable
    if setting.flag:
        yield setting.flag
