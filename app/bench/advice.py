"""The recommendation in words: which length, when to turn drafting off, and what the rules of thumb say.

What is recommended follows from what was measured. The thresholds of acceptance that people use are quoted as
what they are.
"""

from __future__ import annotations

from app.bench.results import AUTO, EVERY_KIND, Context, Mode, ResultRow, Results
from app.bench.statistics import Estimate

DRAFT_LESS, TRY_MORE = 0.60, 0.90
"""Acceptance under or over which people advise so; costs are not considered by it."""
WORTH = 1.03
"""A gain below this is not worth a word."""
CLOSE = 0.95
"""auto within 5% of the best fixed length is as good as that, and follows the text."""


def advise(results: Results) -> str:
    """One line. Says so if there is too little to go by."""
    mode, context = _subject(results)
    rows = [row for row in results.rows if (row.mode, row.context) == (mode, context)]
    overall = {row.setting: row for row in rows if row.kind == EVERY_KIND and row.speedup}
    if not overall:
        return "Too little was measured for advice: give it more --minutes."
    best = max(overall.values(), key=_gain)
    if _gain(best) < WORTH:
        closest = f"best: {best.setting} at {_gain(best):.2f}×"
        return f"Turn drafting off here: no setting was more than 3% faster ({closest})."
    auto = overall.get(AUTO)
    chosen = auto if auto and _gain(auto) >= CLOSE * _gain(best) else best
    words = f"Use --draft {chosen.setting}: {_times(chosen)} here"
    if chosen is not best:
        words += f", as good as the best fixed length ({best.setting}: {_gain(best):.2f}×)"
    return f"{words}. {_when_off(results, mode)}{_rule_of_thumb(chosen)}{_how_sure(chosen)}".strip()


def _subject(results: Results) -> tuple[Mode, Context]:
    """Greedy and short where there are such rows: the first that was measured."""
    row = results.rows[0] if results.rows else None
    return (row.mode, row.context) if row else ("greedy", "short")


def _when_off(results: Results, mode: Mode) -> str:
    """Where no setting was faster than off."""
    lost = []
    for context in ("short", "medium", "long"):
        rows = [row for row in results.rows if row.mode == mode and row.context == context and row.speedup]
        for kind in dict.fromkeys(row.kind for row in rows if row.kind != EVERY_KIND):
            best = max((row for row in rows if row.kind == kind), key=_gain)
            if _gain(best) < 1:
                lost.append(f"{kind} in a {context} context ({_gain(best):.2f}×)")
    return f"Turn it off for {', '.join(lost)}. " if lost else ""


def _rule_of_thumb(row: ResultRow) -> str:
    share = row.acceptance
    if share is None:
        return ""
    rule = f"its acceptance is {share:.0%}; the rule of thumb is under 60% draft less, over 90% try more"
    if share < DRAFT_LESS:
        return f"Shorter drafts may do as well: {rule}."
    if share > TRY_MORE:
        return f"Longer drafts may do better: {rule}."
    return f"{rule[0].upper()}{rule[1:]}."


def _how_sure(row: ResultRow) -> str:
    assert row.speedup
    return "" if row.speedup.is_tight else " The interval is still wide: more --minutes make it surer."


def _times(row: ResultRow) -> str:
    assert row.speedup
    return in_words(row.speedup)


def in_words(speedup: Estimate) -> str:
    """`2.91× (2.80–3.05)`; of a single block without an interval."""
    words = f"{speedup.median:.2f}×"
    return words if speedup.count < 2 else f"{words} ({speedup.low:.2f}–{speedup.high:.2f})"


def _gain(row: ResultRow) -> float:
    return row.speedup.median if row.speedup else 0.0
