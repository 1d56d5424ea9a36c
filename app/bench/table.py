"""The main table and its companions, as plain lines for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from app.bench.advice import speedup_text
from app.bench.results import AUTO, EVERY_KIND, OFF, Context, FirstToken, Mode, ResultRow
from app.bench.rows import find_row, first_token_times
from app.text.figures import UNKNOWN, per_round, percent, size, speed

HEAD = (
    f"{'draft':>5} {'ms/token':>8} {'tok/s':>6} {'accept':>6} {'tok/rd':>6} {'speedup':>17} {'identical':>9} "
    f"{'J/tok':>5} {'peak':>7}"
)
UNDRAFTED = "undrafted"
BAR_WIDTH = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


def main_table(rows: Sequence[ResultRow], mode: Mode, context: Context, kind: str = EVERY_KIND) -> list[str]:
    """The main table: one line for every setting."""
    chosen = [row for row in rows if (row.mode, row.context, row.kind) == (mode, context, kind)]
    return [HEAD, *(_line(row) for row in chosen)]


def subjects(rows: Sequence[ResultRow]) -> list[tuple[Mode, Context]]:
    """The modes and contexts that have a main table, in the order they were measured."""
    return list(dict.fromkeys((row.mode, row.context) for row in rows if row.kind == EVERY_KIND))


def kind_table(rows: Sequence[ResultRow], mode: Mode, context: Context, settings: Sequence[str]) -> list[str]:
    """Speedups by kind of prompt and setting."""
    drafting = [setting for setting in settings if setting != OFF]
    width = max(6, min(9, 66 // max(1, len(drafting))))
    lines = [f"{'':<12}" + "".join(f"{setting:>{width}}" for setting in drafting)]
    kinds = [row.kind for row in rows if (row.mode, row.context) == (mode, context)]
    for kind in dict.fromkeys(kinds):
        cells = []
        for setting in drafting:
            row = find_row(rows, mode, context, kind, setting)
            cells.append(f"{row.speedup.median:.2f}×" if row and row.speedup else UNKNOWN)
        lines.append(f"{kind:<12}" + "".join(f"{cell:>{width}}" for cell in cells))
    return lines


def drafter_table(rows: Sequence[ResultRow], mode: Mode, context: Context, settings: Sequence[str]) -> list[str]:
    """By kind of prompt, the share of the tokens that each drafter proposed; empty if all are from one drafter.

    Of `auto`, or of the last setting if that was not measured.
    """
    chosen = [
        row for row in rows if (row.mode, row.context, row.setting) == (mode, context, drafter_setting(settings))
    ]
    names = list(dict.fromkeys(name for row in chosen for name in row.token_shares))
    if len(names) < 2:
        return []
    lines = [f"{'':<12}" + "".join(f"{name:>12}" for name in (*names, UNDRAFTED))]
    for row in chosen:
        shares = [row.token_shares.get(name, 0.0) for name in names]
        cells = "".join(f"{percent(share):>12}" for share in (*shares, 1 - sum(shares)))
        lines.append(f"{row.kind:<12}{cells}")
    return lines


def drafter_setting(settings: Sequence[str]) -> str:
    """The setting that `drafter_table` shows."""
    return AUTO if AUTO in settings else settings[-1]


def bars(rows: Sequence[ResultRow], mode: Mode, context: Context) -> list[str]:
    """Speedups as bars that start at 0; off is 1."""
    chosen = [row for row in rows if (row.mode, row.context, row.kind) == (mode, context, EVERY_KIND)]
    known = [(row.setting, 1.0, "1.00×") for row in chosen if row.setting == OFF]
    known += [(row.setting, row.speedup.median, speedup_text(row.speedup)) for row in chosen if row.speedup]
    longest = max((gain for _, gain, _ in known), default=1.0)
    return [f"{setting:>5} {bar(gain / longest, BAR_WIDTH)} {text}" for setting, gain, text in known]


def bar(share: float, width: int) -> str:
    """A bar `width` cells wide, accurate to an eighth of a cell."""
    eighths = round(max(0.0, min(share, 1.0)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def first_token_lines(first_tokens: Sequence[FirstToken]) -> list[str]:
    """Time to first token, by context."""
    return [
        f"{context:<8}{tokens:>6} prompt tokens  {ttft.median:8.3f} s  ({ttft.low:.3f}–{ttft.high:.3f})"
        for context, (tokens, ttft) in first_token_times(first_tokens).items()
    ]


def identical(row: ResultRow) -> str:
    """`yes`, or how many replies were identical; a dash for sampled replies, which are not compared."""
    if not row.compared:
        return UNKNOWN
    return "yes" if row.same == row.compared else f"{row.same} of {row.compared}"


def differences(rows: Sequence[ResultRow]) -> list[str]:
    """Where drafting, or a repeat without it, gave different tokens."""
    return [
        f"draft {row.setting} ({row.mode}, {row.context}) first differs at {row.first_difference}"
        for row in rows
        if row.kind == EVERY_KIND and row.first_difference
    ]


def speedup_cell(row: ResultRow) -> str:
    """The speedup with its interval; off is 1, because the others are compared with it."""
    if row.setting == OFF:
        return "1.00×"
    return speedup_text(row.speedup) if row.speedup else UNKNOWN


def _line(row: ResultRow) -> str:
    latency = f"{row.ms_per_token.median:8.2f}" if row.ms_per_token else UNKNOWN.rjust(8)
    energy = f"{row.energy_j_per_token:5.2f}" if row.energy_j_per_token is not None else UNKNOWN.rjust(5)
    return (
        f"{row.setting:>5} {latency} {speed(row.tokens_per_s):>6} {percent(row.acceptance):>6} "
        f"{per_round(row.tokens_per_round):>6} {speedup_cell(row):>17} {identical(row):>9} {energy} "
        f"{size(row.peak_memory_bytes)}"
    )
