"""The recommendation after a run: which draft length to use, and where to turn drafting off.

The recommendation follows from the measured speedups. The acceptance thresholds that people commonly use are only
quoted next to it.
"""

from __future__ import annotations

from app.bench.results import AUTO, EVERY_KIND, Context, Mode, ResultRow, Results
from app.bench.statistics import Estimate

DRAFT_LESS, TRY_MORE = 0.60, 0.90
"""Common rule of thumb: below this acceptance draft less, above it try more. It ignores costs."""
WORTHWHILE_SPEEDUP = 1.03
"""A smaller speedup is not worth recommending."""
AS_FAST_SHARE = 0.95
"""auto is recommended within 5% of the best fixed length, because it also adapts to the text."""


def advise(results: Results) -> str:
    """The advice as one line."""
    mode, context = _subject(results)
    rows = [row for row in results.rows if (row.mode, row.context) == (mode, context)]
    overall = {row.setting: row for row in rows if row.kind == EVERY_KIND and row.speedup}
    if not results.method.compares:
        return f"A request to {results.pair.server} cannot switch drafting, so there was nothing to compare."
    if not overall:
        return "Too little was measured to give advice. Allow more time with --minutes."
    best = max(overall.values(), key=_gain)
    if _gain(best) < WORTHWHILE_SPEEDUP:
        closest = f"the best was {best.setting} at {_gain(best):.2f}×"
        return f"Turn drafting off on this machine: no setting was more than 3% faster ({closest})."
    auto = overall.get(AUTO)
    chosen = auto if auto and _gain(auto) >= AS_FAST_SHARE * _gain(best) else best
    advice = f"Use --draft {chosen.setting}: {_times(chosen)} on this machine"
    if chosen is not best:
        advice += f", as good as the best fixed length ({best.setting}: {_gain(best):.2f}×)"
    return f"{advice}. {_when_off(results, mode)}{_rule_of_thumb(chosen)}{_confidence(chosen)}".strip()


def _subject(results: Results) -> tuple[Mode, Context]:
    """The mode and context measured first: greedy and short, if they were measured."""
    row = results.rows[0] if results.rows else None
    return (row.mode, row.context) if row else ("greedy", "short")


def _when_off(results: Results, mode: Mode) -> str:
    """The kinds and contexts where no setting was faster than off."""
    slower = []
    for context in ("short", "medium", "long"):
        rows = [row for row in results.rows if row.mode == mode and row.context == context and row.speedup]
        for kind in dict.fromkeys(row.kind for row in rows if row.kind != EVERY_KIND):
            best = max((row for row in rows if row.kind == kind), key=_gain)
            if _gain(best) < 1:
                slower.append(f"{kind} in a {context} context ({_gain(best):.2f}×)")
    return f"Turn drafting off for {', '.join(slower)}. " if slower else ""


def _rule_of_thumb(row: ResultRow) -> str:
    share = row.acceptance
    if share is None:
        return ""
    rule = f"acceptance is {share:.0%}; the rule of thumb is to draft less under 60% and try more over 90%"
    if share < DRAFT_LESS:
        return f"Shorter drafts may be as fast: {rule}."
    if share > TRY_MORE:
        return f"Longer drafts may be faster: {rule}."
    return f"{rule[0].upper()}{rule[1:]}."


def _confidence(row: ResultRow) -> str:
    assert row.speedup
    return "" if row.speedup.is_tight else " The interval is still wide; more --minutes make it narrower."


def _times(row: ResultRow) -> str:
    assert row.speedup
    return speedup_text(row.speedup)


def speedup_text(speedup: Estimate) -> str:
    """`2.91× (2.80–3.05)`; without an interval for a single block."""
    text = f"{speedup.median:.2f}×"
    return text if speedup.count < 2 else f"{text} ({speedup.low:.2f}–{speedup.high:.2f})"


def _gain(row: ResultRow) -> float:
    return row.speedup.median if row.speedup else 0.0
