"""The figures of a reply: as they are stored, and as the line below the reply shows them, in short or in full."""

from __future__ import annotations

from app import __version__
from app.core.reply_facts import ReplyFacts
from app.store.records import StoredMessage, TurnStats
from app.text.figures import is_slower, per_round, percent, speed, times
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
    stats, started, finished = facts.stats, facts.started, facts.finished
    if isinstance(stats, ServerStats):
        return _server_stats(stats, finished.reason if finished else error or None, ready)
    lengths = [count for count in stats.drafted_by_position if count]
    return TurnStats(
        finish_reason=finished.reason if finished else error or None,
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


def _server_stats(stats: ServerStats, reason: str | None, ready: Ready | None) -> TurnStats:
    reported = stats.reported
    return TurnStats(
        finish_reason=reason,
        prompt_tokens=reported.prompt_tokens,
        cached_tokens=reported.cached_tokens,
        generated_tokens=reported.generated_tokens,
        rounds=reported.rounds,
        target_passes=None,
        drafted=reported.drafted,
        accepted=reported.accepted,
        ttft_s=stats.ttft_s,
        decode_s=stats.decode_s,
        speedup=stats.speedup,
        peak_memory_bytes=reported.peak_memory_bytes,
        model=ready.target if ready else "",
        app_version=__version__,
        server=reported.source or (ready.server.name if ready and ready.server else "a server"),
        is_about=reported.is_about,
        tokens_per_round=reported.tokens_per_round,
        remark=reported.remark,
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
    if stats.generated_tokens == 0:
        return short_line(stats, broke_off=broke_off)
    drafts = []
    if (acceptance := _acceptance(stats)) is not None:
        drafts.append(f"{percent(acceptance).strip()} acc{f' {stats.remark}' if stats.remark else ''}")
    if (tokens_per_round := _tokens_per_round(stats)) is not None:
        drafts.append(f"{per_round(tokens_per_round)} tok/rd")
    ttft = [] if stats.ttft_s is None else [f"TTFT {stats.ttft_s:.2f} s{_seen_here(stats)}"]
    return " · ".join(
        [
            *_pace(stats, _seen_here(stats)),
            *drafts,
            *_speedup(stats),
            *ttft,
            *_prompt(stats),
            *_source(stats),
            *_ending(stats, broke_off),
        ]
    )


def short_line(stats: TurnStats, *, broke_off: bool = False) -> str:
    """The line below a reply, with the most important figures only."""
    return " · ".join([*_pace(stats), *_speedup(stats), *_ending(stats, broke_off)])


def spoken_line(stats: TurnStats, *, broke_off: bool = False) -> str:
    """The same figures, for a screen reader."""
    about = "about " if stats.is_about else ""
    parts = [] if stats.generated_tokens is None else [f"{about}{stats.generated_tokens} tokens"]
    ending = _ending(stats, broke_off)
    if stats.generated_tokens == 0:
        return ", ".join([*parts, *ending]) + "."
    if stats.tokens_per_s is not None:
        parts.append(f"{speed(stats.tokens_per_s).strip()} tokens per second{_seen_here(stats)}")
    if (acceptance := _acceptance(stats)) is not None:
        parts.append(f"{acceptance:.0%} of the drafts accepted{f' {stats.remark}' if stats.remark else ''}")
    if (tokens_per_round := _tokens_per_round(stats)) is not None:
        parts.append(f"{tokens_per_round:.1f} tokens per round")
    if stats.speedup is not None:
        slower = ", which is slower" if is_slower(stats.speedup) else ""
        parts.append(f"{stats.speedup:.2f} times plain speed{slower}")
    if stats.ttft_s is not None:
        parts.append(f"first token after {stats.ttft_s:.2f} seconds{_seen_here(stats)}")
    return ", ".join([*parts, *_source(stats), *ending]) + "."


def _acceptance(stats: TurnStats) -> float | None:
    return stats.accepted / stats.drafted if stats.drafted and stats.accepted is not None else None


def _tokens_per_round(stats: TurnStats) -> float | None:
    if stats.server:
        return stats.tokens_per_round
    return stats.generated_tokens / stats.rounds if stats.generated_tokens and stats.rounds else None


def _seen_here(stats: TurnStats) -> str:
    """Follows a time that was measured on this machine while another one did the work."""
    return " seen here" if stats.server else ""


def _source(stats: TurnStats) -> list[str]:
    """Whose counts these are, and that there are none."""
    if not stats.server:
        return []
    return [f"counted by {stats.server}" if stats.generated_tokens is not None else f"{stats.server} counts nothing"]


def _pace(stats: TurnStats, seen_here: str = "") -> list[str]:
    if stats.generated_tokens is None:
        return []
    tokens = f"{'about ' if stats.is_about else ''}{stats.generated_tokens} tok"
    if stats.tokens_per_s is None:
        return [tokens]
    return [tokens, f"{speed(stats.tokens_per_s).strip()} tok/s{seen_here}"]


def _prompt(stats: TurnStats) -> list[str]:
    """How much of the prompt was kept, where something was."""
    if not stats.cached_tokens or stats.prompt_tokens is None:
        return []
    return [f"{stats.prompt_tokens - stats.cached_tokens} of {stats.prompt_tokens} prompt tok read"]


def _speedup(stats: TurnStats) -> list[str]:
    if stats.speedup is None or not stats.generated_tokens:
        return []
    return [times(stats.speedup) + (" (slower)" if is_slower(stats.speedup) else "")]


def _ending(stats: TurnStats, broke_off: bool) -> list[str]:
    """How the reply ended, unless it is complete."""
    ending = "broke off" if broke_off else _ENDINGS.get(stats.finish_reason or "")
    return [ending] if ending else []
