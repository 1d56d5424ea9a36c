"""`/report` line by line: measures this machine with the loaded pair, says the report, then writes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count

from app.core.chat_options import Examine
from app.plain.lines import Lines
from app.report.contents import ReportedPair, TerminalFacts, as_text
from app.report.making import REPORT_FILE, advice, make_report
from app.store.transfer import write_file
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.events import Died, Event, Failed, Measured
from mlx_engine.protocol.micro_figures import MicroFigures
from models.paths import expanded

ADVICE = "Use /report with another name."
_NUMBERS = count(1)

Hear = Callable[[], Awaitable[Event | None]]
"""Waits for the engine's next event, and handles it. Raises KeyboardInterrupt on control c."""


async def report(
    name: str | None,
    *,
    engine: EngineHandle,
    hear: Hear,
    pair: ReportedPair,
    examine: Examine,
    terminal: TerminalFacts,
    lines: Lines,
) -> None:
    """Where nobody can be asked, what was said is written. Raises StoreError if it cannot be."""
    path = expanded(name or REPORT_FILE).absolute()
    lines.say("Measuring this machine, which takes half a minute. Control c stops that.")
    try:
        figures, why = await _measured(engine, hear)
    except KeyboardInterrupt:
        engine.cancel()
        lines.say("\nThe measurements were stopped.")
        return
    device, checks = examine()
    made = make_report(
        checks=checks, device=device, pair=pair, figures=figures, terminal=terminal, notes=[why] if why else []
    )
    text = as_text(made)
    lines.say(text)
    for sentence in filter(None, (*made.notes, advice(made))):
        lines.say(sentence)
    if lines.is_prompting:
        answer = lines.read(f"To write this to {path}, type yes: ")
        if (answer or "").strip().lower() not in ("y", "yes"):
            lines.say("Nothing was written.")
            return
    write_file(path, text, may_replace=False, advice=ADVICE)
    lines.say(f"Written to {path}. Send it with an issue, if you like.")


async def _measured(engine: EngineHandle, hear: Hear) -> tuple[MicroFigures | None, str]:
    """The figures, or why there are none."""
    number = -next(_NUMBERS)  # no reply has such a number
    engine.measure(number)
    while True:
        match await hear():
            case Measured(id=id, figures=figures) if id == number:
                return figures, ""
            case Failed(id=id, message=message) if id == number:
                return None, message
            case Died(message=message):
                return None, message
