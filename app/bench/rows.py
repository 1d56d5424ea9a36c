"""Calculates the rows of the table from the replies. All arithmetic about speed in the bench is here.

Speedup is a ratio within one block, in which every setting has a turn there and a turn back: whatever slows the
machine during the block slows both sides of the ratio alike.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from app.bench.results import EVERY_KIND, OFF, Context, FirstToken, MeasuredReply, Mode, ResultRow
from app.bench.statistics import Estimate, estimate

TURNS = 2
"""Replies per setting in a complete block."""
Key = tuple[Mode, Context, str, str]
"""Mode, context, kind, setting."""


def make_rows(replies: Sequence[MeasuredReply], settings: Sequence[str]) -> tuple[ResultRow, ...]:
    """A row for every setting and kind that was measured, followed by those for all kinds together."""
    groups: dict[Key, list[MeasuredReply]] = defaultdict(list)
    for reply in replies:
        for kind in (reply.kind, EVERY_KIND):
            groups[reply.mode, reply.context, kind, reply.setting].append(reply)
    ratios = block_ratios(replies)
    subjects = dict.fromkeys((mode, context, kind) for mode, context, kind, _ in groups)
    ordered = sorted(subjects, key=lambda subject: subject[2] == EVERY_KIND)
    return tuple(
        _row((*subject, setting), groups[(*subject, setting)], ratios)
        for subject in ordered
        for setting in settings
        if (*subject, setting) in groups
    )


def block_ratios(replies: Iterable[MeasuredReply]) -> dict[Key, list[float]]:
    """Speedups by kind and setting: one per complete block, in order."""
    blocks: dict[int, list[MeasuredReply]] = defaultdict(list)
    for reply in replies:
        blocks[reply.block].append(reply)
    ratios: dict[Key, list[float]] = defaultdict(list)
    for block in blocks.values():
        paces = _paces(block)
        plain = paces.pop(OFF, None)
        for setting, pace in paces.items() if plain else ():
            for kind in (block[0].kind, EVERY_KIND):
                ratios[block[0].mode, block[0].context, kind, setting].append(plain / pace)  # type: ignore[operator]
    return ratios


def first_token_times(measurements: Iterable[FirstToken]) -> dict[Context, tuple[int, Estimate]]:
    """By context: the median number of prompt tokens, and the seconds to the first token of the reply."""
    cold: dict[Context, list[FirstToken]] = defaultdict(list)
    for measurement in measurements:
        prompt, cached = measurement.prompt_tokens, measurement.cached_tokens
        if prompt is not None and cached is not None and cached < prompt / 2:
            cold[measurement.context].append(measurement)
    times = {}
    for context, of_context in cold.items():
        tokens = estimate([measurement.prompt_tokens or 0 for measurement in of_context])
        ttft = estimate([measurement.ttft_s for measurement in of_context])
        assert tokens
        assert ttft
        times[context] = (round(tokens.median), ttft)
    return times


def find_row(rows: Iterable[ResultRow], mode: Mode, context: Context, kind: str, setting: str) -> ResultRow | None:
    """The row of a kind and setting; None if it was not measured."""
    key = (mode, context, kind, setting)
    return next((row for row in rows if (row.mode, row.context, row.kind, row.setting) == key), None)


def _paces(block: Sequence[MeasuredReply]) -> dict[str, float]:
    """Seconds per token of each setting that completed all its turns."""
    turns: dict[str, list[MeasuredReply]] = defaultdict(list)
    for reply in block:
        turns[reply.setting].append(reply)
    return {
        setting: sum(reply.decode_s for reply in turn) / sum(reply.tokens for reply in turn)
        for setting, turn in turns.items()
        if len(turn) == TURNS and all(reply.tokens and reply.decode_s > 0 for reply in turn)
    }


def _row(key: Key, replies: Sequence[MeasuredReply], ratios: dict[Key, list[float]]) -> ResultRow:
    mode, context, kind, setting = key
    latency = estimate([reply.decode_s / reply.tokens * 1000 for reply in replies if reply.tokens])
    compared = [reply for reply in replies if reply.is_same is not None]
    differing = [reply for reply in compared if not reply.is_same]
    tokens = sum(reply.tokens for reply in replies)
    drafted, accepted = (_sum(getattr(reply, name) for reply in replies) for name in ("drafted", "accepted"))
    passes = _sum(reply.target_passes for reply in replies)
    return ResultRow(
        mode=mode,
        context=context,
        kind=kind,
        setting=setting,
        replies=len(replies),
        ms_per_token=latency,
        tokens_per_s=1000 / latency.median if latency and latency.median > 0 else None,
        acceptance=accepted / drafted if drafted and accepted is not None else None,
        token_shares=_token_shares(replies, tokens),
        tokens_per_round=tokens / passes if passes else None,
        speedup=estimate(ratios.get(key, [])),
        compared=len(compared),
        same=len(compared) - len(differing),
        first_difference=_first_difference(differing),
        energy_j_per_token=_energy(replies),
        peak_memory_bytes=max((peak for reply in replies if (peak := reply.peak_memory_bytes)), default=None),
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    """None if one of them is not known."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


def _token_shares(replies: Sequence[MeasuredReply], tokens: int) -> dict[str, float]:
    accepted: Counter[str] = Counter()
    for reply in replies:
        accepted.update(reply.accepted_by_drafter)
    return {name: count / tokens for name, count in accepted.items() if count}


def _first_difference(differing: Sequence[MeasuredReply]) -> str | None:
    reply = min(differing, key=lambda reply: reply.differs_at or 0, default=None)
    return f"token {(reply.differs_at or 0) + 1} of {reply.prompt}" if reply else None


def _energy(replies: Sequence[MeasuredReply]) -> float | None:
    metered = [(reply.energy_j, reply.tokens) for reply in replies if reply.energy_j is not None]
    tokens = sum(count for _, count in metered)
    return sum(energy_j for energy_j, _ in metered) / tokens if tokens else None
