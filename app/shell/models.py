"""`slipstream models`: list, pull, verify, convert and remove models."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.shell.models_files import convert_model, pull_models, remove_models, verify_models
from app.shell.models_show import list_models, show_info
from app.system.console import tell, warn
from app.system.exit_codes import FAILED, INTERRUPTED
from mlx_engine.protocol.errors import SlipstreamError

Action = Callable[[argparse.Namespace], int]


def add_parser(subparsers: Any) -> None:
    """Register `models` and its commands."""
    parser = subparsers.add_parser("models", help="list, pull, verify, convert and remove models")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, action: Action, help: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name, help=help, description=f"{help[:1].upper()}{help[1:]}."
        )
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(command=_guarded(action))
        return command

    listing = add(
        "list",
        list_models,
        "list all models, and show which fit and which are here (same as `slipstream models` alone)",
    )
    listing.add_argument("--here", action="store_true", help="only models on this machine")
    info = add("info", show_info, "show how much memory a model needs, before pulling or loading it")
    pull = add("pull", pull_models, "pull a model and its drafter, or resume an interrupted pull")
    remove = add("rm", remove_models, "remove a model from the hub cache")
    check = add("verify", verify_models, "check a model's files against their recorded sizes and hashes")
    for command in (info, pull, remove):
        command.add_argument("model", metavar="MODEL", help="a name from `models list`, a hub id or a folder")
    check.add_argument(
        "model", metavar="MODEL", nargs="?", help="a name, hub id or folder (default: all models on this machine)"
    )
    check.add_argument("--hub", action="store_true", help="also compare with the hub")
    info.add_argument("--context", type=int, metavar="TOKENS", help="length of the chat in tokens (default: 8192)")
    pull.add_argument("--revision", metavar="REV", help="commit, branch or tag of the main model")
    pull.add_argument("--no-drafter", action="store_true", help="pull only the main model, not its drafter")
    pull.add_argument("--offline", action="store_true", help="only check whether it is here; use no network")
    pull.add_argument("--insist", action="store_true", help="pull even if the disk seems to have no room")
    for command in (pull, remove):
        command.add_argument("--yes", "-y", action="store_true", help="do not ask for confirmation")
    convert = add("convert", convert_model, "make a quantized copy of a model or its drafter")
    convert.add_argument(
        "source", metavar="MODEL", help="an unquantized model: a name from `models list`, a hub id or a folder"
    )
    convert.add_argument("copy", type=Path, metavar="FOLDER", help="where to write the copy")
    convert.add_argument(
        "--bits", type=int, default=4, choices=(2, 3, 4, 5, 6, 8), help="bits per weight (default: 4)"
    )
    convert.add_argument(
        "--group-size",
        type=int,
        default=64,
        choices=(32, 64, 128),
        help="weights that share a scale (default: 64)",
    )
    convert.add_argument("--drafter", action="store_true", help="convert the drafter of MODEL instead")


def _guarded(action: Action) -> Action:
    def run(options: argparse.Namespace) -> int:
        try:
            return action(options)
        except SlipstreamError as error:
            warn(str(error))
            return FAILED
        except KeyboardInterrupt:
            tell("\nStopped. Run the same command again to resume.")
            return INTERRUPTED

    return run
