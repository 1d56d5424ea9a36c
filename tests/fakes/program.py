"""The command `slipstream` as it is installed, with an engine that follows a script.

`python program.py SCRIPT FAULTS WORDS...`; FAULTS, divided by commas, take a defence away, to show that a test
sees it: no-sanitiser, no-barrier, no-driver; eager: draw every round at once; hasty: have little
patience with a silent engine; crash: fail at page up; impatient: give up the end of a paste early.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from app.cli import main
from app.text import sanitise
from app.tui import chat_app
from app.tui.terminal import barrier, input_parser, safe_app
from app.tui.transcript import turn
from mlx_engine import client
from mlx_engine.protocol import pulse
from tests.fakes import scripted_engine


def take_away(fault: str) -> None:
    """Break the program in one way."""
    match fault:
        case "no-sanitiser":
            for table in (sanitise._STAND_INS, sanitise._cells()):
                table.clear()
        case "no-barrier":
            barrier.Barrier.apply = lambda self, segments, background: segments  # type: ignore[method-assign]
        case "no-driver":
            from textual.drivers.linux_driver import LinuxDriver

            safe_app.SafeApp.get_driver_class = lambda self: LinuxDriver  # type: ignore[method-assign]
        case "eager":
            vars(turn).update(DRAW_S=0.0, FIRST_DRAW_S=0.0, COST_FACTOR=0)
        case "hasty":
            client.Patience = partial(pulse.Patience, tick_s=0.05, start_ticks=1000)  # type: ignore[assignment, attr-defined]
        case "impatient":
            input_parser.PASTE_REST_S = 0.2
        case "crash":
            chat_app.ChatApp.on_prompt_page_requested = lambda self, event: dict[str, str]()["SECRET" + "-KEY"]  # type: ignore[attr-defined]


def run() -> int:
    """The exit code."""
    script, faults, *words = sys.argv[1:]
    wrapper = Path(script).with_name("engine.sh")
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{scripted_engine.__file__}" "{script}"\n')
    wrapper.chmod(0o700)
    sys.executable = str(wrapper)
    for fault in filter(None, faults.split(",")):
        take_away(fault)
    return main(words)


if __name__ == "__main__":
    sys.exit(run())
