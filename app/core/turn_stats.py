"""The figures of a reply: as they are stored, and as the line below the reply shows them, in short or in full."""

from __future__ import annotations

from app import __version__
from app.core.reply_facts import ReplyFacts
from app.store.records import StoredMessage, TurnStats
from app.text.figures import is_slower, per_round, percent, speed, times
from mlx_engine.protocol.events import Ready

STOPPED = "stopped"
RUNNING_ELSEWHERE = "running in another window"
_ENDINGS = {
    "length": "reached the token limit",
    "cancelled": STOPPED,
}


def turn_stats(facts: ReplyFacts, ready: Ready | None, error: str = "") -> TurnStats:
    """The figures that the engine reported. error: why the reply failed."""
    stats, started, finished = facts.stats, facts.started, facts.finished
    lengths = [count for count in stats.drafted_by_position if count]
    return TurnStats(
        finish_reason=finished.reason if finished else error or None,
        prompt_tokens=started.prompt_tokens if started else 0,
        cached_tokens=started.cached_tokens if started else 0,
        disk_tokens=started.disk_tokens if started else 0,
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


CAN_GO_ON = "/continue"
"""Follows the figures of a reply that can be continued."""


def stored_lines(reply: StoredMessage) -> tuple[str, str]:
    """The short line and the full one below a stored reply. One that was cut off when the program ended has no
    figures."""
    if reply.state == "interrupted":
        return STOPPED, STOPPED
    if reply.state == "generating":
        return RUNNING_ELSEWHERE, RUNNING_ELSEWHERE
    if reply.stats is None:
        return "", ""
    broke_off = reply.state == "failed"
    return short_line(reply.stats, broke_off=broke_off), reply_line(reply.stats, broke_off=broke_off)


def reply_line(stats: TurnStats, *, broke_off: bool = False) -> str:
    """The line below a reply with all figures. It names only what was measured."""
    if not stats.generated_tokens:
        return short_line(stats, broke_off=broke_off)
    drafts = []
    if stats.drafted:
        drafts.append(f"{percent(stats.accepted / stats.drafted).strip()} acc")
    if stats.rounds:
        drafts.append(f"{per_round(stats.generated_tokens / stats.rounds)} tok/rd")
    ttft = [] if stats.ttft_s is None else [f"TTFT {stats.ttft_s:.2f} s"]
    return " · ".join(
        [*_pace(stats), *drafts, *_speedup(stats), *ttft, *_prompt(stats), *_ending(stats, broke_off)]
    )


def short_line(stats: TurnStats, *, broke_off: bool = False) -> str:
    """The line below a reply, with the most important figures only."""
    return " · ".join([*_pace(stats), *_speedup(stats), *_ending(stats, broke_off)])


def spoken_line(stats: TurnStats, *, broke_off: bool = False) -> str:
    """The same figures, for a screen reader."""
    parts = [f"{stats.generated_tokens} tokens"]
    ending = _ending(stats, broke_off)
    if not stats.generated_tokens:
        return ", ".join([*parts, *ending]) + "."
    if stats.decode_s > 0:
        parts.append(f"{speed(stats.generated_tokens / stats.decode_s).strip()} tokens per second")
    if stats.drafted:
        parts.append(f"{stats.accepted / stats.drafted:.0%} of the drafts accepted")
    if stats.rounds:
        parts.append(f"{stats.generated_tokens / stats.rounds:.1f} tokens per round")
    if stats.speedup is not None:
        slower = ", which is slower" if is_slower(stats.speedup) else ""
        parts.append(f"{stats.speedup:.2f} times plain speed{slower}")
    if stats.ttft_s is not None:
        parts.append(f"first token after {stats.ttft_s:.2f} seconds")
    return ", ".join([*parts, *ending]) + "."


def _pace(stats: TurnStats) -> list[str]:
    tokens = f"{stats.generated_tokens} tok"
    if not stats.generated_tokens or stats.decode_s <= 0:
        return [tokens]
    return [tokens, f"{speed(stats.generated_tokens / stats.decode_s).strip()} tok/s"]


def _prompt(stats: TurnStats) -> list[str]:
    """How much of the prompt was kept, where something was, and how much of that on disk."""
    if not stats.cached_tokens:
        return []
    read = f"{stats.prompt_tokens - stats.cached_tokens} of {stats.prompt_tokens} prompt tok read"
    return [f"{read}, {stats.disk_tokens} from disk" if stats.disk_tokens else read]


def _speedup(stats: TurnStats) -> list[str]:
    if stats.speedup is None or not stats.generated_tokens:
        return []
    return [times(stats.speedup) + (" (slower)" if is_slower(stats.speedup) else "")]


def _ending(stats: TurnStats, broke_off: bool) -> list[str]:
    """How the reply ended, unless it is complete."""
    ending = "broke off" if broke_off else _ENDINGS.get(stats.finish_reason or "")
    return [ending] if ending else []
