"""The settings as flags of a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from app.settings.kinds import Kind, quoted
from app.settings.table import table


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Every setting that has a flag. None stands for one that was not typed."""
    group = parser.add_argument_group("settings", "`slipstream settings` says which values hold without a flag")
    for setting in table().values():
        kind = setting.info.kind
        if not setting.flag or kind is None:
            continue
        default = setting.info.unset or setting.display_text(setting.default)
        words = f"{setting.info.help} (default: {default})".replace("%", "%%")
        if isinstance(setting.default, bool):
            group.add_argument(setting.flag, action=argparse.BooleanOptionalAction, default=None, help=words)
        else:
            group.add_argument(
                setting.flag, dest=setting.name, type=_taken(kind), metavar=kind.placeholder, help=words
            )


def typed_values(options: argparse.Namespace) -> Mapping[str, Any]:
    """What was typed, by the setting's name; None for what was not."""
    return {name: getattr(options, name, None) for name, setting in table().items() if setting.flag}


def _taken(kind: Kind) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return kind.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{quoted(text)} cannot be used. Use {kind.allowed}") from None

    return parse
