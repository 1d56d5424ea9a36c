"""What was measured, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    row: str
    pair: str
    blas: str
    figure: str
    value: float
    bar: float | None = None
    """None: reported without one."""
    kind: Literal["at least", "at most"] = "at least"
    low: float | None = None
    """The spread over the repeats."""
    high: float | None = None
    detail: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the bar is met; None without one."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.kind == "at least" else self.value <= self.bar


def markdown(figures: Sequence[Figure]) -> str:
    """A table with bar, outcome and spread."""
    lines = ["| figure | pair | BLAS | measured | spread | bar | | |", "|---|---|---|---|---|---|---|---|"]
    outcome = {True: "pass", False: "**miss**", None: ""}
    for each in figures:
        spread = "" if each.low is None or each.high is None else f"{each.low:.3g} to {each.high:.3g}"
        bar = "" if each.bar is None else f"{each.kind} {each.bar:g}"
        cells = (
            each.figure,
            each.pair,
            each.blas,
            f"{each.value:.3g}",
            spread,
            bar,
            outcome[each.is_met],
            each.detail,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_json(path: Path, machine: dict[str, str], figures: Sequence[Figure]) -> None:
    """Everything that was measured so far."""
    rows = [asdict(each) | {"is_met": each.is_met} for each in figures]
    path.write_text(json.dumps({"machine": machine, "figures": rows}, indent=1))
