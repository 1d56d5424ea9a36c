"""The full report of a run: as text for the terminal, and as Markdown to publish."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from app.bench import table
from app.bench.advice import advise
from app.bench.machine_state import state_text
from app.bench.results import PairFacts, ResultRow, Results
from app.text.figures import UNKNOWN, per_round, percent, size, speed
from app.text.sanitise import sanitise_line
from models.bundles import DRAFTER_NAMES

WIDTH = 80
ENDINGS = {
    "tight": "every interval is within 5% of its median",
    "passes": "all passes are done",
    "time": "time is up",
    "interrupted": "interrupted; showing what was measured so far",
    "failed": "stopped early by an error; showing what was measured so far",
    "running": "did not finish; showing what was measured so far",
}


def as_text(results: Results) -> str:
    """The report for a terminal with 80 columns."""
    lines = [sanitise_line(line) for line in _head(results)]
    for mode, context in table.subjects(results.rows):
        lines += ["", f"{mode.capitalize()}, {context} context, all kinds of prompts", ""]
        lines += table.main_table(results.rows, mode, context)
        lines += ["", *table.bars(results.rows, mode, context)]
        if results.method.compares:
            lines += ["", "Speedup by kind of prompt", ""]
            lines += table.kind_table(results.rows, mode, context, results.method.settings)
        if drafters := table.drafter_table(results.rows, mode, context, results.method.settings):
            lines += ["", _drafters_title(results), "", *drafters]
    lines += ["", "Time to first token, with an empty prompt cache", ""]
    lines += table.first_token_lines(results.first_tokens)
    lines += ["", *_foot(results)]
    return "\n".join(lines) + "\n"


def as_markdown(results: Results) -> str:
    """The report as Markdown tables."""
    lines = _head(results)
    lines = [" ".join([lines[0] + ".", *(f"{line}." for line in lines[1:])])]
    for mode, context in table.subjects(results.rows):
        lines += ["", f"**{mode.capitalize()}, {context} context, all kinds of prompts**", ""]
        lines += _markdown_table(results.rows, mode, context)
        if results.method.compares:
            lines += ["", "Speedup by kind of prompt:", ""]
            lines += _markdown_lines(table.kind_table(results.rows, mode, context, results.method.settings))
        if drafters := table.drafter_table(results.rows, mode, context, results.method.settings):
            lines += ["", f"{_drafters_title(results)}:", "", *_markdown_lines(drafters)]
    times = "; ".join(
        line.strip() for line in map(" ".join, map(str.split, table.first_token_lines(results.first_tokens)))
    )
    lines += ["", f"Time to first token, with an empty prompt cache: {times}."]
    for line in _foot(results):
        lines += ["", line]
    return "\n".join(lines) + "\n"


def _head(results: Results) -> list[str]:
    pair, machine, method = results.pair, results.machine, results.method
    preloaded = f", {machine.preloaded} preloaded" if machine.preloaded else ""
    versions = " ".join(f"{name} {number}" for name, number in machine.versions.items())
    blocks = len({reply.block for reply in results.replies})
    return [
        f"slipstream bench: {pair_text(pair)}",
        f"{machine.chip}, {machine.cores} cores, {machine.memory_bytes / 1e9:.0f} GB, {machine.system}{preloaded}",
        f"slipstream {results.app_version}, {versions}",
        f"{len(results.replies)} replies of at most {method.max_tokens} tokens in {blocks} interleaved blocks, "
        f"{results.took_s / 60:.1f} min",
    ]


def pair_text(pair: PairFacts) -> str:
    """The pair that was measured, such as `e4b (4-bit) with gemma-4-E4B-it-assistant`."""
    facts = (("compiled", pair.is_compiled), ("wired", pair.is_wired), ("not Gemma", pair.is_pocket))
    marks = [mark for mark, applies in facts if applies]
    if pair.server is not None:
        return f"{pair.target} at {pair.title}, answered by {pair.server}"
    target = f"{pair.title} ({', '.join([pair.precision or 'unknown precision', *marks])})"
    drafter = "its own drafter" if pair.drafter in DRAFTER_NAMES else pair.drafter
    return f"{target} with {drafter}"


def _foot(results: Results) -> list[str]:
    states = [f"Before: {state_text(results.before)}."]
    if results.after:
        states.append(f"After: {state_text(results.after)}.")
    lines = [
        "Figures are medians with 95% intervals by rank (with fewer than six blocks, from the smallest to the "
        "largest). Speedup is the ratio within a block, in which every setting runs there and back. "
        f"{ENDINGS[results.ended].capitalize()}.",
        " ".join(states),
    ]
    lines += [f"Note: {sanitise_line(note)}" for note in results.notes]
    lines += [f"Not identical: {line}." for line in table.differences(results.rows)]
    return [*lines, advise(results)]


def wrapped(text: str) -> str:
    """The text with long lines broken at spaces. Tables are never that long."""
    lines = (
        textwrap.wrap(line, WIDTH, break_on_hyphens=False) if len(line) > WIDTH else [line]
        for line in text.split("\n")
    )
    return "\n".join(part for parts in lines for part in parts)


def _markdown_table(rows: Sequence[ResultRow], mode: str, context: str) -> list[str]:
    names = (
        "draft",
        "ms/token",
        "tokens/s",
        "acceptance",
        "tokens per round",
        "speedup",
        "identical",
        "J/token",
        "peak memory",
    )
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        if (row.mode, row.context, row.kind) == (mode, context, "all"):
            latency = f"{row.ms_per_token.median:.2f}" if row.ms_per_token else UNKNOWN
            energy = UNKNOWN if row.energy_j_per_token is None else f"{row.energy_j_per_token:.2f}"
            cells = (
                row.setting, latency, speed(row.tokens_per_s), percent(row.acceptance),
                per_round(row.tokens_per_round), table.speedup_cell(row), table.identical(row), energy,
                size(row.peak_memory_bytes),
            )  # fmt: skip
            lines.append("| " + " | ".join(cell.strip() for cell in cells) + " |")
    return lines


def _drafters_title(results: Results) -> str:
    return f"Who proposed the tokens at draft {table.drafter_setting(results.method.settings)}"


def _markdown_lines(lines: Sequence[str]) -> list[str]:
    """The first column has no name."""
    cells = [["", *lines[0].split()], *(line.split() for line in lines[1:])]
    return ["| " + " | ".join(cells[0]) + " |", "|" + "---|" * len(cells[0])] + [
        "| " + " | ".join(row) + " |" for row in cells[1:]
    ]
