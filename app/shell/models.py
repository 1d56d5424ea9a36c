"""`slipstream models`: what there is, what fits, and what is on this machine; fetch, check, convert, remove."""

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
    parser = subparsers.add_parser("models", help="list, fetch, check, convert and remove models")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, action: Action, words: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name, help=words, description=words.capitalize() + "."
        )
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(command=_guarded(action))
        return command

    listing = add(
        "list", list_models, "list the catalog, what fits, and what is here (what `slipstream models` alone does)"
    )
    listing.add_argument("--here", action="store_true", help="only what is on this machine")
    info = add("info", show_info, "show the memory sum of a model before it is fetched or loaded")
    pull = add("pull", pull_models, "fetch a model and its drafter, or go on with it")
    remove = add("rm", remove_models, "remove a model from the hub's cache")
    check = add("verify", verify_models, "compare files with the recorded sizes and hashes, and say what differs")
    for command in (info, pull, remove):
        command.add_argument("model", metavar="MODEL", help="a name of the catalog, a hub id or a folder")
    check.add_argument(
        "model", metavar="MODEL", nargs="?", help="a name, hub id or folder (default: all that is here)"
    )
    check.add_argument("--hub", action="store_true", help="ask the hub as well")
    info.add_argument("--context", type=int, metavar="TOKENS", help="length of the conversation (default: 8192)")
    pull.add_argument("--revision", metavar="REV", help="commit, branch or tag of the target")
    pull.add_argument("--no-drafter", action="store_true", help="only the target")
    pull.add_argument("--offline", action="store_true", help="only look whether it is here; open no connection")
    for command in (pull, remove):
        command.add_argument("--yes", "-y", action="store_true", help="do not ask")
    convert = add("convert", convert_model, "make a quantized copy of a target or a drafter")
    convert.add_argument(
        "source", metavar="MODEL", help="a name of the catalog, a hub id or a folder, not quantized"
    )
    convert.add_argument("copy", type=Path, metavar="FOLDER", help="the folder to make")
    convert.add_argument("--bits", type=int, default=4, choices=(2, 3, 4, 5, 6, 8))
    convert.add_argument("--group-size", type=int, default=64, choices=(32, 64, 128))
    convert.add_argument("--drafter", action="store_true", help="convert the drafter of MODEL, not its target")


def _guarded(action: Action) -> Action:
    def run(options: argparse.Namespace) -> int:
        try:
            return action(options)
        except SlipstreamError as error:
            warn(str(error))
            return FAILED
        except KeyboardInterrupt:
            tell("\nStopped. The same command goes on from here.")
            return INTERRUPTED

    return run
