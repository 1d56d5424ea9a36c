"""What each server reports about a reply, under its own definition, as one kind of figures.

Only final figures are read: mlx-vlm sends a speed with every message, and those are noise. No speed of a server is
used at all, since the same name means different things; the client measures it. Accepted counts no bonus token in
any of these, which their sums confirm. Zero of zero is "not reported": several send zeros where they know nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mlx_engine.protocol.events import ServerFigures


@dataclass(slots=True)
class Reported:
    """The figures that a stream has carried so far. Of each object, the last one counts."""

    usage: Mapping[str, Any] = field(default_factory=dict)
    objects: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By the name of their field: timings, metrics, generation_metadata, slipstream, stats, sglext."""
    counters: Mapping[str, float] = field(default_factory=dict)
    """By how much each of the server's counters has grown, if no other request grew it."""

    def read(self, chunk: Mapping[str, Any]) -> None:
        """Keep the figures of one message."""
        for name in OBJECTS:
            if isinstance(value := chunk.get(name), Mapping) and value:
                self.objects[name] = value
        if isinstance(usage := chunk.get("usage"), Mapping) and usage:
            self.usage = usage

    def object(self, name: str) -> Mapping[str, Any]:
        return self.objects.get(name, {})


OBJECTS = ("timings", "metrics", "generation_metadata", "slipstream", "stats", "sglext")


def of_usage(reported: Reported, source: str) -> ServerFigures:
    """The counts that nearly all send. None of drafting."""
    usage = reported.usage
    prompt, generated = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if not prompt and not generated:
        return ServerFigures(source)
    details = usage.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, Mapping) else None
    return ServerFigures(source, prompt_tokens=prompt, cached_tokens=cached, generated_tokens=generated)


def of_slipstream(reported: Reported, source: str) -> ServerFigures:
    """Its own object beside the usage, with Slipstream's definitions. There the first token comes from a round
    too, so one more is counted than elsewhere."""
    own = reported.object("slipstream")
    rounds = _count(own, "rounds")
    return msgspec.structs.replace(
        of_usage(reported, source),
        disk_tokens=_count(own, "disk_tokens"),
        drafted=_count(own, "drafted_tokens"),
        accepted=_count(own, "accepted_tokens"),
        rounds=rounds - 1 if rounds else rounds,
        tokens_per_round=_number(own, "tokens_per_round"),
        speedup=_number(own, "speedup"),
    )


def of_mlx_vlm(reported: Reported, source: str) -> ServerFigures:
    """The last `timings`: tokens = 1 + accepted + rounds. Absent without a drafter."""
    timings = reported.object("timings")
    peak_gb = _number(timings, "peak_memory")
    figures = msgspec.structs.replace(
        of_usage(reported, source), peak_memory_bytes=round(peak_gb * 1e9) if peak_gb else None
    )
    return _drafted(
        figures,
        _count(timings, "draft_n"),
        _count(timings, "draft_n_accepted"),
        _count(timings, "draft_rounds"),
    )


def of_llama_cpp(reported: Reported, source: str) -> ServerFigures:
    """The `timings` of the last message, unasked. It names no rounds: they are the tokens that no draft gave,
    without the one that the prompt's pass gave."""
    timings = reported.object("timings")
    cached, read, generated = (_count(timings, name) for name in ("cache_n", "prompt_n", "predicted_n"))
    figures = of_usage(reported, source)
    if figures.generated_tokens is None and generated:
        prompt = read + cached if read is not None and cached is not None else None
        figures = msgspec.structs.replace(
            figures, prompt_tokens=prompt, cached_tokens=cached, generated_tokens=generated
        )
    accepted = _count(timings, "draft_n_accepted")
    rounds = generated - 1 - accepted if generated and accepted is not None else None
    return _drafted(figures, _count(timings, "draft_n"), accepted, rounds)


def of_vllm_mlx(reported: Reported, source: str) -> ServerFigures:
    """`mtp_drafts` are tokens, not rounds. While it drafts, its count of tokens is off by a few."""
    own = reported.object("generation_metadata")
    figures = _drafted(of_usage(reported, source), _count(own, "mtp_drafts"), _count(own, "mtp_accepted"), None)
    return msgspec.structs.replace(figures, is_about=bool(figures.drafted))


def of_vllm(reported: Reported, source: str) -> ServerFigures:
    """`metrics` where the server sends them, else the growth of its counters, if these count this reply's tokens
    alone: a request that was broken off is never counted as finished. Its mean acceptance length counts the bonus
    token and is not used."""
    own = reported.object("metrics").get("speculative_decoding")
    figures = of_usage(reported, source)
    if isinstance(own, Mapping):
        return _drafted(
            figures,
            _count(own, "num_draft_tokens"),
            _count(own, "num_accepted_draft_tokens"),
            _count(own, "num_spec_steps"),
        )
    counters = reported.counters
    if _count(counters, "vllm:generation_tokens_total") != figures.generated_tokens:
        return figures
    return _drafted(
        figures,
        _count(counters, "vllm:spec_decode_num_draft_tokens_total"),
        _count(counters, "vllm:spec_decode_num_accepted_tokens_total"),
        _count(counters, "vllm:spec_decode_num_drafts_total"),
    )


def of_rapid_mlx(reported: Reported, source: str) -> ServerFigures:
    """The growth of its counters, of its MTP drafter or of suffix decoding."""
    counters = reported.counters
    mtp, suffix = "rapid_mlx_spec_decode_", "rapid_mlx_suffix_decode_"
    figures = of_usage(reported, source)
    if counters.get(f"{mtp}attempts_total"):
        return _drafted(
            figures,
            _count(counters, f"{mtp}attempts_total"),
            _count(counters, f"{mtp}accepts_total"),
            _count(counters, f"{mtp}verify_calls_total"),
        )
    return _drafted(
        figures,
        _count(counters, f"{suffix}draft_tokens_proposed_total"),
        _count(counters, f"{suffix}draft_tokens_accepted_total"),
        _count(counters, f"{suffix}verify_steps_total"),
    )


def of_sglang(reported: Reported, source: str) -> ServerFigures:
    """It counts every round as if the draft had its full width, also where it was shorter."""
    own = reported.object("sglext").get("spec_tokens_details")
    own = own if isinstance(own, Mapping) else {}
    figures = _drafted(
        of_usage(reported, source),
        _count(own, "spec_num_proposed_drafts"),
        _count(own, "spec_num_correct_drafts"),
        _count(own, "spec_verify_ct"),
    )
    return msgspec.structs.replace(figures, remark="of full width") if figures.drafted else figures


def of_lm_studio(reported: Reported, source: str) -> ServerFigures:
    """Accepted of all drafts; those that it ignored are named, since they are among the drafts."""
    stats = reported.object("stats")
    figures = _drafted(
        of_usage(reported, source),
        _count(stats, "total_draft_tokens_count"),
        _count(stats, "accepted_draft_tokens_count"),
        None,
    )
    ignored = _count(stats, "ignored_draft_tokens_count")
    return msgspec.structs.replace(figures, remark=f"({ignored:,} ignored)") if ignored else figures


def _drafted(
    figures: ServerFigures, drafted: int | None, accepted: int | None, rounds: int | None
) -> ServerFigures:
    """With what drafting did, if both numbers are there and something was drafted."""
    if not drafted or accepted is None:
        return figures
    per_round = (accepted + rounds) / rounds if rounds else None
    return msgspec.structs.replace(
        figures, drafted=drafted, accepted=accepted, rounds=rounds or None, tokens_per_round=per_round
    )


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def _count(values: Mapping[str, Any], name: str) -> int | None:
    value = _number(values, name)
    return int(value) if value is not None and value.is_integer() else None
