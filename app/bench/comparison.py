"""Compares two runs: what changed, and whether the change is more than noise.

Blocks of the same prompt are paired in order, so that differences between prompts cancel. A change is more than
noise if the 95% interval of the median ratio excludes 1, which takes at least six pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from app.bench import history
from app.bench.results import EVERY_KIND, Context, MeasuredReply, Mode, Results
from app.bench.rows import block_ratios
from app.bench.statistics import FEWEST_VALUES, Estimate, estimate

Key = tuple[Mode, Context, str, str]
VERDICTS = {True: "more than noise", False: "no more than noise", None: "too few blocks to tell"}


class Change(msgspec.Struct, frozen=True):
    """The change of one figure, as a ratio of the second run to the first."""

    mode: Mode
    context: Context
    kind: str
    setting: str
    figure: str
    """`speedup`, or `tokens/s`, which also depends on what else the machine was doing."""
    ratio: Estimate
    is_real: bool | None
    """Whether it is more than noise; None: too few pairs to tell."""


class RunComparison(msgspec.Struct, frozen=True):
    """The differences between two runs and between their figures."""

    differences: tuple[str, ...]
    """What differs in the setup of the runs, such as the machine."""
    changes: tuple[Change, ...]


def compare(first: Results, second: Results) -> RunComparison:
    """Compare the second run with the first."""
    changes = []
    for figure, values in (("speedup", _speedups), ("tokens/s", _paces)):
        before, after = values(first.replies), values(second.replies)
        pairs: dict[Key, list[float]] = defaultdict(list)
        for (mode, context, kind, setting, prompt), olds in before.items():
            for old, new in zip(olds, after.get((mode, context, kind, setting, prompt), [])):
                for name in (kind, EVERY_KIND):
                    pairs[mode, context, name, setting].append(new / old)
        for (mode, context, kind, setting), ratios in pairs.items():
            ratio = estimate(ratios)
            assert ratio
            is_real = ratio.excludes(1.0) if ratio.count >= FEWEST_VALUES else None
            changes.append(Change(mode, context, kind, setting, figure, ratio, is_real))
    return RunComparison(_differences(first, second), tuple(changes))


def as_text(comparison: RunComparison, names: tuple[str, str]) -> str:
    """The comparison as lines for a terminal. names: of the two files."""
    lines = [f"From {names[0]}", f"to   {names[1]}"]
    lines += [f"Different: {difference}." for difference in comparison.differences]
    if not comparison.changes:
        return "\n".join([*lines, "", "Nothing to compare: the runs share no prompt and draft setting."]) + "\n"
    for figure in ("speedup", "tokens/s"):
        chosen = [change for change in comparison.changes if change.figure == figure]
        note = " (includes changes of the machine between the runs)" if figure == "tokens/s" else ""
        for mode, context in dict.fromkeys((change.mode, change.context) for change in chosen):
            lines += ["", f"Change of {figure}, {mode}, {context} context{note}", ""]
            lines += [
                _line(change)
                for change in chosen
                if (change.mode, change.context, change.kind) == (mode, context, EVERY_KIND)
            ]
    real = [change for change in comparison.changes if change.figure == "speedup" and change.is_real]
    for change in real:
        if change.kind != EVERY_KIND:
            lines.append(f"{change.kind}, {_line(change).strip()}")
    return "\n".join([*lines, "", _verdict(comparison)]) + "\n"


def _verdict(comparison: RunComparison) -> str:
    speedups = [
        change for change in comparison.changes if change.figure == "speedup" and change.kind == EVERY_KIND
    ]
    real = [change for change in speedups if change.is_real]
    if all(change.is_real is None for change in speedups):
        return f"Too little was measured to tell: {FEWEST_VALUES} or more shared blocks are needed."
    if not real:
        return "No speedup changed by more than noise."
    listed = ", ".join(f"draft {change.setting} {change.ratio.median - 1:+.1%}" for change in real)
    return f"Speedups that changed by more than noise: {listed}."


def _line(change: Change) -> str:
    ratio = change.ratio
    spread = f"({ratio.low - 1:+.1%} to {ratio.high - 1:+.1%})"
    return f"{'draft ' + change.setting:>11} {ratio.median - 1:+7.1%}  {spread}  {VERDICTS[change.is_real]}"


def _speedups(replies: Sequence[MeasuredReply]) -> dict[tuple[Mode, Context, str, str, str], list[float]]:
    by_prompt: dict[tuple[Mode, Context, str, str, str], list[float]] = {}
    for prompt in dict.fromkeys(reply.prompt for reply in replies):
        ratios = block_ratios([reply for reply in replies if reply.prompt == prompt])
        for (mode, context, kind, setting), values in ratios.items():
            if kind != EVERY_KIND:
                by_prompt[mode, context, kind, setting, prompt] = values
    return by_prompt


def _paces(replies: Sequence[MeasuredReply]) -> dict[tuple[Mode, Context, str, str, str], list[float]]:
    """Tokens per second: one figure per block, the mean of its turns."""
    turns: dict[tuple[Mode, Context, str, str, str], dict[int, list[MeasuredReply]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for reply in replies:
        if reply.decode_s > 0:
            key = (reply.mode, reply.context, reply.kind, reply.setting, reply.prompt)
            turns[key][reply.block].append(reply)
    return {
        key: [
            sum(reply.tokens for reply in block) / sum(reply.decode_s for reply in block)
            for block in blocks.values()
        ]
        for key, blocks in turns.items()
    }


def _differences(first: Results, second: Results) -> tuple[str, ...]:
    facts: dict[str, Callable[[Results], str]] = {
        "the pair": history.pair_name,
        "the machine": history.machine_name,
        "preloaded libraries": lambda results: results.machine.preloaded or "none",
        "slipstream": lambda results: results.app_version,
        "MLX": lambda results: results.machine.versions.get("mlx", "none"),
        "the prompts": lambda results: f"{results.method.prompts}{', pocket' if results.pair.is_pocket else ''}",
        "the longest reply": lambda results: f"{results.method.max_tokens} tokens",
        "the sampling": lambda results: results.method.rule,
    }
    return tuple(
        f"{name} ({fact(first)} / {fact(second)})" for name, fact in facts.items() if fact(first) != fact(second)
    )
