"""`slipstream doctor --report FILE`: measures, shows the report and writes it, for people to send."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.pair_choice import PairChoice, pair_options_of
from app.core.start import first_pair
from app.report.contents import Report, TerminalFacts
from app.settings.effective import read_settings
from app.settings.remembered import RememberedChoices
from app.system import places
from app.system.console import STANDARD_OUTPUT, ask, is_terminal, say, tell
from app.system.exit_codes import FAILED, OK
from app.system.interrupts import Stop
from mlx_engine.client import EngineClient, EngineHandle
from mlx_engine.protocol.errors import SlipstreamError

Rows = Sequence[Mapping[str, str]]


def add_arguments(parser: argparse.ArgumentParser, form: Any) -> None:
    """form: the group of which one can be given."""
    form.add_argument(
        "--report",
        metavar="FILE",
        help="measure the kernels and the model for half a minute, show a report about this machine without names "
        "or chats, and write it to FILE, to send it; - only shows it",
    )
    parser.add_argument("--model", metavar="NAME|FOLDER|HUB-ID", help="with --report: the model to measure")
    parser.add_argument(
        "--keys", action="store_true", help="with --report: also ask for some keys, and note the bytes they send"
    )
    parser.add_argument("--force", action="store_true", help="with --report: replace FILE if it exists")


def run(options: argparse.Namespace, device: Mapping[str, Any] | None, checks: Rows) -> int:
    """Make a report about the model in the settings, or the one in the options. Returns the exit code.

    Raises SlipstreamError if the file cannot be written. A model that cannot be loaded is told in the report.
    """
    # Every start of the program imports this module.
    from app.bench.outputs import check_file

    if options.report != STANDARD_OUTPUT:
        check_file(Path(options.report), options.force)
    facts = terminal_facts(wants_keys=options.keys)
    notes: list[str] = []
    pair = engine = None
    try:
        pair = _pair(options.model)
        engine = EngineClient(pair.load, places.engine_log())
    except SlipstreamError as error:
        notes.append(str(error))
    report = measured_report(pair, engine, device, checks, facts, notes)
    return publish(report, options.report, may_replace=options.force)


def measured_report(
    pair: PairChoice | None,
    engine: EngineHandle | None,
    device: Mapping[str, Any] | None,
    checks: Rows,
    terminal: TerminalFacts,
    notes: Sequence[str] = (),
) -> Report:
    """Load the pair, measure it, and put the report together. If that fails, the report says why instead.

    pair, engine: None: there is none to measure. Closes the engine.
    """
    from app.bench.asking import BlockingEngine
    from app.bench.energy import RaplMeter
    from app.report.making import make_report, reported_pair

    reported, figures, why = None, None, list(notes)
    if pair is not None and engine is not None:
        blocking = BlockingEngine(engine, Stop(), RaplMeter())
        try:
            tell(f"Loading {pair.title} ...")
            ready = blocking.load(needs_drafter=False)
            reported = reported_pair(pair.title, ready)
            tell("Measuring; this takes half a minute ...")
            figures = blocking.measure()
        except SlipstreamError as error:
            why.append(str(error))
        finally:
            engine.close()
        why += blocking.notices
    return make_report(checks=checks, device=device, pair=reported, figures=figures, terminal=terminal, notes=why)


def publish(report: Report, name: str, *, may_replace: bool) -> int:
    """Show the report, then write it, if the person at the terminal agrees. Raises SlipstreamError."""
    from app.report.contents import as_text
    from app.report.making import advice
    from app.store.transfer import write_file

    text = as_text(report)
    say(text, end="")
    for sentence in filter(None, (*report.notes, advice(report))):
        tell(sentence)
    if name != STANDARD_OUTPUT:
        if is_terminal(sys.stdin) and not ask(f"Write this to {name}?"):
            tell("Nothing was written.")
            return OK
        write_file(Path(name), text, may_replace)
        tell(f"Written to {name}. Send it with an issue, if you like.")
    return OK if report.figures else FAILED


def terminal_facts(*, wants_keys: bool = False) -> TerminalFacts:
    """Of the terminal that this runs in. wants_keys: ask the person to press some."""
    from app.system.terminal_bytes import Terminal, ask_terminal, read_keys, variables_in

    columns, lines = shutil.get_terminal_size((0, 0))
    answers: dict[str, str] = {}
    keys: dict[str, str] = {}
    if is_terminal(sys.stdin):
        terminal = Terminal(sys.stdin.fileno())
        with terminal.unbuffered():
            answers = ask_terminal(terminal)
            keys = read_keys(terminal, tell) if wants_keys else {}
    return TerminalFacts(
        size=f"{columns} x {lines}" if columns else "not a terminal",
        variables=variables_in(os.environ),
        answers=answers,
        keys=keys,
    )


def _pair(model: str | None) -> PairChoice:
    state = RememberedChoices.read(places.state_file())
    effective = read_settings({"model": model}, state.as_settings())
    return first_pair(effective, pair_options_of(effective.settings))[0]
