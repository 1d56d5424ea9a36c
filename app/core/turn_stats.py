"""The figures of a reply, from what the engine said to what the store keeps and the line under a reply shows."""

from __future__ import annotations

from app import __version__
from app.store.records import TurnStats
from mlx_engine.protocol.events import Finished, Ready, Started
from mlx_engine.protocol.stats import ReplyStats


def turn_stats(
    stats: ReplyStats,
    ready: Ready | None,
    started: Started | None,
    finished: Finished | None,
    trouble: str = "",
) -> TurnStats:
    """What was measured; events that never came leave their figures out. trouble: why the reply failed."""
    lengths = [count for count in stats.drafted_by_position if count]
    return TurnStats(
        finish_reason=finished.reason if finished else trouble or None,
        prompt_tokens=started.prompt_tokens if started else 0,
        cached_tokens=started.cached_tokens if started else 0,
        generated_tokens=stats.generated_tokens,
        rounds=stats.rounds,
        target_passes=finished.target_passes if finished else 0,
        drafted=stats.drafted,
        accepted=stats.accepted,
        drafted_by_position=tuple(lengths),
        accepted_by_position=tuple(stats.accepted_by_position[: len(lengths)]),
        draft_length=len(lengths),
        ttft_s=stats.ttft_s,
        decode_s=stats.decode_s,
        plain_tokens_per_s=stats.baseline_tokens_per_s,
        speedup=stats.speedup,
        peak_memory_bytes=finished.peak_memory_bytes if finished else None,
        model=ready.target if ready else "",
        drafter=ready.drafter if ready else None,
        app_version=__version__,
    )
