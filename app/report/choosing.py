"""Chooses defaults for a device from a report: the first draft length, the prefill chunk, the drafter's bits.

Only arithmetic on the report's figures; nothing here was measured by this project on a Mac.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.report.contents import Defaults, Report, ReportedPair
from mlx_engine.network.chunk_length import LONGEST_S
from mlx_engine.protocol.micro_figures import MicroFigures
from mlx_engine.protocol.prefill_chunk import EXPERTS_ON_GPU, ON_GPU

USUAL_ACCEPTANCE = 0.8
"""The chance that a draft is accepted if those before it were: between what is published for chats and code."""
NEAR_LENGTH = 1.01
"""The shortest length at most this many times as slow as the best one is chosen: short drafts waste less."""
NEAR_CHUNK = 1.04
"""The same for chunks: short ones take less memory, and a stop takes effect sooner."""
EIGHT_BIT_STEP = 0.55
"""Time of a drafter's step at 8 bits against 16: half the bytes, and what a step takes besides reading them.
Published: 4 bits take a quarter (mlxcel's profile)."""
WORTH = 1.1
"""8 bits are chosen if they make rounds this many times as fast."""


def choose_defaults(report: Report) -> Defaults:
    """What would be fastest on the report's device, as far as its figures tell."""
    if report.pair is None or report.figures is None:
        return Defaults()
    chunk = _chunk(report.figures.prefill_s, has_experts=report.pair.has_experts)
    step_s = report.figures.drafter_step_s.get(report.pair.drafter or "")
    if step_s is None or 1 not in report.figures.verify_s:
        return Defaults(prefill_chunk=chunk)
    bits = _bits(report.figures, report.pair, step_s)
    if bits != report.pair.drafter_bits:
        step_s *= EIGHT_BIT_STEP
    return Defaults(
        start_length=max(1, _best_length(report.figures.verify_s, step_s)), prefill_chunk=chunk, drafter_bits=bits
    )


def _bits(figures: MicroFigures, pair: ReportedPair, step_s: float) -> int | None:
    """8 if that makes rounds clearly faster; else as loaded."""
    if pair.drafter_bits is not None:
        return pair.drafter_bits
    verify_s = figures.verify_s
    fastest = [
        _tokens_per_s(verify_s, each_s, _best_length(verify_s, each_s))
        for each_s in (step_s, step_s * EIGHT_BIT_STEP)
    ]
    return 8 if fastest[1] >= WORTH * fastest[0] else None


def _best_length(verify_s: Mapping[int, float], step_s: float) -> int:
    """The draft length with the most tokens per second, among those measured."""
    speeds = {rows - 1: _tokens_per_s(verify_s, step_s, rows - 1) for rows in sorted(verify_s)}
    return next(length for length, speed in speeds.items() if NEAR_LENGTH * speed >= max(speeds.values()))


def _tokens_per_s(verify_s: Mapping[int, float], step_s: float, length: int) -> float:
    tokens = (1 - USUAL_ACCEPTANCE ** (length + 1)) / (1 - USUAL_ACCEPTANCE)
    return tokens / (verify_s[length + 1] + length * step_s)


def _chunk(prefill_s: Mapping[int, float], *, has_experts: bool) -> int | None:
    """Among the chunks within which a stop is noticed soon enough; else the one that chunks shrink to."""
    if not prefill_s:
        return None
    shortest = (EXPERTS_ON_GPU if has_experts else ON_GPU).least_tokens
    usable = [chunk for chunk in sorted(prefill_s) if prefill_s[chunk] <= LONGEST_S or chunk <= shortest]
    per_token_s = {chunk: prefill_s[chunk] / chunk for chunk in usable or [min(prefill_s)]}
    return next(chunk for chunk, each_s in per_token_s.items() if each_s <= NEAR_CHUNK * min(per_token_s.values()))
