"""Settings as command-line flags."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from app.settings.kinds import Kind, quoted
from app.settings.table import table


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting that has one; its value is None unless it is given."""
    group = parser.add_argument_group(
        "settings", "`slipstream settings` shows the values that apply without a flag"
    )
    for setting in table().values():
        kind = setting.info.kind
        if not setting.flag or kind is None:
            continue
        default = setting.info.unset or setting.display_text(setting.default)
        text = f"{setting.info.help} (default: {default})".replace("%", "%%")
        if isinstance(setting.default, bool):
            group.add_argument(setting.flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            group.add_argument(
                setting.flag, dest=setting.name, type=_parser_of(kind), metavar=kind.placeholder, help=text
            )


def typed_values(options: argparse.Namespace) -> Mapping[str, Any]:
    """The value of each setting's flag, by the setting's name; None for a flag that was not given."""
    return {name: getattr(options, name, None) for name, setting in table().items() if setting.flag}


def _parser_of(kind: Kind) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return kind.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{quoted(text)} cannot be used. Use {kind.allowed}") from None

    return parse
