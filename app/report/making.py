"""Puts a report together, and takes out of it what names the person or the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.report.choosing import choose_defaults
from app.report.contents import Defaults, Report, ReportedPair, TerminalFacts
from app.system.privacy import nameless
from mlx_engine.protocol.events import Ready
from mlx_engine.protocol.micro_figures import MicroFigures, row_steps

REPORT_FILE = "slipstream-report.json"
"""Where a report is written if the person names no file."""
FROM_THE_SYSTEM = ("machine", "device", "figures")
"""Names of chips, versions and numbers. A person may be called as a chip's maker is."""


def make_report(
    *,
    checks: Sequence[Mapping[str, str]],
    device: Mapping[str, Any] | None,
    pair: ReportedPair | None,
    figures: MicroFigures | None,
    terminal: TerminalFacts,
    notes: Sequence[str] = (),
) -> Report:
    """A report that names nobody. device: what MLX says; None if it does not start."""
    # The chat imports this module when it starts, and what that one needs takes long to import.
    from app.bench.machine_state import machine_facts

    report = Report(
        machine=machine_facts(),
        device=dict(device or {}),
        pair=pair,
        figures=figures,
        row_steps=_row_steps(figures) if figures else {},
        terminal=terminal,
        checks=tuple(dict(check) for check in checks),
        notes=tuple(notes),
    )
    report = msgspec.structs.replace(report, chosen=choose_defaults(report))
    values = msgspec.to_builtins(report, str_keys=True)
    cleaned = {name: value if name in FROM_THE_SYSTEM else _nameless(value) for name, value in values.items()}
    return msgspec.convert(cleaned, Report, strict=False)


def reported_pair(title: str, ready: Ready) -> ReportedPair:
    return ReportedPair(
        title=title,
        drafter=next(iter(ready.drafters), None),
        precision=ready.precision,
        has_experts=ready.has_experts,
        start_length=ready.start_length,
        prefill_chunk=ready.prefill_chunk,
        drafter_bits=ready.drafter_bits,
        drafter_vocabulary=ready.drafter_vocabulary,
        memory_bytes=ready.memory_bytes,
        refusal=ready.refusal,
    )


def advice(report: Report) -> str:
    """The settings that would be faster here, in a sentence; empty if nothing was measured."""
    pair, chosen = report.pair, report.chosen or Defaults()
    if pair is None or chosen == Defaults():
        return ""
    flags = []
    if chosen.start_length not in (None, pair.start_length):
        flags.append(f"--draft-start {chosen.start_length}")
    if chosen.prefill_chunk not in (None, pair.prefill_chunk):
        flags.append(f"--prefill-chunk {chosen.prefill_chunk}")
    if chosen.drafter_bits not in (None, pair.drafter_bits):
        flags.append(f"--drafter-bits {chosen.drafter_bits}")
    if not flags:
        return f"The defaults are right for {pair.title} on this machine, by these figures."
    return f"By these figures, {pair.title} may be faster here with {' '.join(flags)}."


def _row_steps(figures: MicroFigures) -> dict[str, tuple[int, ...]]:
    attention = {f"attention {size}": times_s for size, times_s in figures.attention_s.items()}
    operations = {"product": figures.product_s, **attention, "verify": figures.verify_s}
    return {name: row_steps(times_s) for name, times_s in operations.items()}


def _nameless(value: Any) -> Any:
    if isinstance(value, str):
        return nameless(value)
    if isinstance(value, dict):
        return {key: _nameless(one) for key, one in value.items()}
    return [_nameless(one) for one in value] if isinstance(value, list | tuple) else value
