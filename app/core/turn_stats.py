"""The figures of a reply: as they are stored, and as the line below the reply shows them, in short or in full."""

from __future__ import annotations

import msgspec

from app import __version__
from app.core.reply_facts import ReplyFacts
from app.store.records import StoredMessage, TurnStats
from app.text.figures import is_slower, per_round, percent, share_of, speed, times
from mlx_engine.protocol.events import Ready
from mlx_engine.protocol.stats import ServerStats

STOPPED = "stopped"
RUNNING_ELSEWHERE = "running in another window"
_ENDINGS = {
    "length": "reached the token limit",
    "cancelled": STOPPED,
}


def turn_stats(facts: ReplyFacts, ready: Ready | None, error: str = "") -> TurnStats:
    """The figures that the engine reported. error: why the reply failed."""
    stats, finished = facts.stats, facts.finished
    if isinstance(stats, ServerStats):
        return _server_stats(stats, finished.reason if finished else error or None, ready)
    lengths = [count for count in stats.drafted_by_position if count]
    return TurnStats(
        finish_reason=finished.reason if finished else error or None,
        prompt_tokens=facts.prompt_tokens or 0,
        cached_tokens=facts.cached_tokens or 0,
        disk_tokens=facts.started.disk_tokens if facts.started else 0,
        generated_tokens=stats.generated_tokens,
        rounds=stats.rounds,
        target_passes=(finished.target_passes or 0) if finished else 0,
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


def _server_stats(stats: ServerStats, reason: str | None, ready: Ready | None) -> TurnStats:
    source = ready.server.name if ready and ready.server else "the server"
    return TurnStats(
        finish_reason=reason,
        ttft_s=stats.ttft_s,
        decode_s=stats.decode_s,
        model=ready.target if ready else "",
        app_version=__version__,
        reported=msgspec.structs.replace(stats.reported, source=stats.reported.source or source),
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
    """The line below a reply with all figures. It names only what was measured or reported."""
    counts = stats.reported or stats
    if counts.generated_tokens == 0:
        return short_line(stats, broke_off=broke_off)
    drafts = []
    if (acceptance := share_of(counts.accepted, counts.drafted)) is not None:
        drafts.append(f"{percent(acceptance).strip()} acc{_remark(stats)}")
    if (tokens_per_round := _tokens_per_round(stats)) is not None:
        drafts.append(f"{per_round(tokens_per_round)} tok/rd")
    ttft = [] if stats.ttft_s is None else [f"TTFT {stats.ttft_s:.2f} s{_seen_here(stats)}"]
    parts = [*_pace(stats, _seen_here(stats)), *drafts, *_speedup(stats), *ttft, *_prompt(stats), *_source(stats)]
    return " · ".join([*parts, *_ending(stats, broke_off)])


def short_line(stats: TurnStats, *, broke_off: bool = False) -> str:
    """The line below a reply, with the most important figures only."""
    return " · ".join([*_pace(stats), *_speedup(stats), *_ending(stats, broke_off)])


def spoken_line(stats: TurnStats, *, broke_off: bool = False) -> str:
    """The same figures, for a screen reader."""
    counts = stats.reported or stats
    tokens = [] if counts.generated_tokens is None else [f"{_about(stats)}{counts.generated_tokens} tokens"]
    ending = _ending(stats, broke_off)
    if counts.generated_tokens == 0:
        return ", ".join([*tokens, *ending]) + "."
    parts = tokens
    if stats.tokens_per_s is not None:
        parts.append(f"{speed(stats.tokens_per_s).strip()} tokens per second{_seen_here(stats)}")
    if (acceptance := share_of(counts.accepted, counts.drafted)) is not None:
        parts.append(f"{acceptance:.0%} of the drafts accepted{_remark(stats)}")
    if (tokens_per_round := _tokens_per_round(stats)) is not None:
        parts.append(f"{tokens_per_round:.1f} tokens per round")
    if (speedup := _speedup_of(stats)) is not None:
        slower = ", which is slower" if is_slower(speedup) else ""
        parts.append(f"{speedup:.2f} times plain speed{slower}")
    if stats.ttft_s is not None:
        parts.append(f"first token after {stats.ttft_s:.2f} seconds{_seen_here(stats)}")
    return ", ".join([*parts, *_source(stats), *ending]) + "."


def _tokens_per_round(stats: TurnStats) -> float | None:
    if stats.reported is not None:
        return stats.reported.tokens_per_round
    return stats.generated_tokens / stats.rounds if stats.rounds else None


def _speedup_of(stats: TurnStats) -> float | None:
    return stats.reported.speedup if stats.reported is not None else stats.speedup


def _seen_here(stats: TurnStats) -> str:
    """Follows a time that was measured on this machine while another one did the work."""
    return "" if stats.reported is None else " seen here"


def _about(stats: TurnStats) -> str:
    return "about " if stats.reported is not None and stats.reported.is_about else ""


def _remark(stats: TurnStats) -> str:
    return f" {stats.reported.remark}" if stats.reported is not None and stats.reported.remark else ""


def _source(stats: TurnStats) -> list[str]:
    """Whose counts these are, or that there are none."""
    if stats.reported is None:
        return []
    is_counted = stats.reported.generated_tokens is not None
    return [f"counted by {stats.reported.source}" if is_counted else f"not counted by {stats.reported.source}"]


def _pace(stats: TurnStats, seen_here: str = "") -> list[str]:
    tokens = (stats.reported or stats).generated_tokens
    if tokens is None:
        return []
    parts = [f"{_about(stats)}{tokens} tok"]
    if stats.tokens_per_s is not None:
        parts.append(f"{speed(stats.tokens_per_s).strip()} tok/s{seen_here}")
    return parts


def _prompt(stats: TurnStats) -> list[str]:
    """How much of the prompt was kept, where something was, and how much of that on disk."""
    counts = stats.reported or stats
    if not counts.cached_tokens or counts.prompt_tokens is None:
        return []
    read = f"{counts.prompt_tokens - counts.cached_tokens} of {counts.prompt_tokens} prompt tok read"
    return [f"{read}, {counts.disk_tokens} from disk" if counts.disk_tokens else read]


def _speedup(stats: TurnStats) -> list[str]:
    speedup = _speedup_of(stats)
    if speedup is None or not (stats.reported or stats).generated_tokens:
        return []
    return [times(speedup) + (" (slower)" if is_slower(speedup) else "")]


def _ending(stats: TurnStats, broke_off: bool) -> list[str]:
    """How the reply ended, unless it is complete."""
    ending = "broke off" if broke_off else _ENDINGS.get(stats.finish_reason or "")
    return [ending] if ending else []
