"""What a report about a machine contains. Nothing in it names the person or the machine."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from app import __version__
from app.bench.results import MachineFacts
from mlx_engine.protocol.micro_figures import MicroFigures

FORMAT = "slipstream-report"
VERSION = 1


class ReportedPair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pair that was loaded, and the defaults that applied to it."""

    title: str
    drafter: str | None = None
    """The kind of the first drafter, such as assistant."""
    precision: str | None = ""
    has_experts: bool = False
    start_length: int | None
    """The draft length that automatic drafting begins with."""
    prefill_chunk: int
    drafter_bits: int | None = None
    """To which the drafter was quantized while it was loaded; None: as stored."""
    drafter_vocabulary: int | None = None
    """How many of the most frequent tokens it drafts; None: any."""
    memory_bytes: int | None = 0
    """What MLX has allocated for the weights."""
    refusal: str | None = None
    """Why a drafter is not used."""


class Defaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What would be fastest here. None: the figures do not tell."""

    start_length: int | None = None
    prefill_chunk: int | None = None
    drafter_bits: int | None = None
    """None also means: as stored."""


class TerminalFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The terminal that the report was made in."""

    size: str = ""
    variables: dict[str, str] = {}
    """Environment variables by which programs know it."""
    answers: dict[str, str] = {}
    """What it answered to questions, with escapes as in Python; empty: nothing."""
    keys: dict[str, str] = {}
    """The bytes it sends for keys, with escapes as in Python; only if the person asked for that."""


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One report."""

    format: str = FORMAT
    version: int = VERSION
    app_version: str = __version__
    machine: MachineFacts
    device: dict[str, Any] = {}
    """What MLX says about it; empty if MLX does not start."""
    pair: ReportedPair | None = None
    """None: it could not be loaded; a note says why."""
    figures: MicroFigures | None = None
    row_steps: dict[str, tuple[int, ...]] = {}
    """By operation: the numbers of rows that are clearly slower than one row less."""
    chosen: Defaults | None = None
    terminal: TerminalFacts = TerminalFacts()
    checks: tuple[dict[str, str], ...] = ()
    """The rows of `slipstream doctor`."""
    notes: tuple[str, ...] = ()


def as_text(report: Report) -> str:
    """The report as JSON, with a line for each thing, so that people can read what they send."""
    parts = []
    for name, value in msgspec.to_builtins(report, str_keys=True).items():
        if isinstance(value, dict) and value:
            lines = ",\n".join(f"    {json.dumps(key)}: {_line(one)}" for key, one in value.items())
            parts.append(f"  {json.dumps(name)}: {{\n{lines}\n  }}")
        elif isinstance(value, list | tuple) and value:
            lines = ",\n".join(f"    {_line(one)}" for one in value)
            parts.append(f"  {json.dumps(name)}: [\n{lines}\n  ]")
        else:
            parts.append(f"  {json.dumps(name)}: {_line(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def read_report(text: str) -> Report:
    """The inverse of `as_text`. Raises msgspec.ValidationError and DecodeError."""
    return msgspec.json.decode(text, type=Report)


def _line(value: object) -> str:
    return json.dumps(_rounded(value), ensure_ascii=True)


def _rounded(value: object) -> object:
    """Seconds with four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
