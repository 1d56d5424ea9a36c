"""`GET /metrics`, in Prometheus' text format. What means the same as in other servers has their name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from app.serve.answer import Answer
from app.serve.errors import ServeError
from app.serve.job import Job

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "slipstream:"
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
COUNTERS = {
    "request_errors": "Requests that failed.",
    "prompt_tokens": "Tokens of prompts, cached ones included.",
    "generation_tokens": "Tokens of replies.",
    "prefix_cache_queries": "Tokens of prompts that were looked for in the cache.",
    "prefix_cache_hits": "Tokens of prompts that were found in the cache, in memory or on disk.",
    "spec_decode_num_drafts": "Rounds with a draft.",
    "spec_decode_num_draft_tokens": "Tokens that drafters proposed.",
    "spec_decode_num_accepted_tokens": "Proposed tokens that became part of a reply.",
}


class Histogram:
    """How many values lie below each bound."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * len(bounds)
        self._count, self._sum = 0, 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self._count += 1
        self._sum += value
        for index, bound in enumerate(self._bounds):
            self._counts[index] += value <= bound

    def lines(self, name: str) -> Iterator[str]:
        """Its samples."""
        for bound, count in zip(self._bounds, self._counts):
            yield f'{name}_bucket{{le="{bound}"}} {count}'
        yield f'{name}_bucket{{le="+Inf"}} {self._count}'
        yield f"{name}_sum {self._sum}"
        yield f"{name}_count {self._count}"


class Metrics:
    """Counts requests that have ended."""

    def __init__(self) -> None:
        self._totals: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._reasons: Counter[str] = Counter()
        self._histograms = {
            "time_to_first_token_seconds": ("From a request's arrival to its first token.", Histogram()),
            "request_queue_time_seconds": ("How long requests waited for their turn.", Histogram()),
            "e2e_request_latency_seconds": ("From a request's arrival to the end of its answer.", Histogram()),
        }

    def note(self, job: Job) -> None:
        """A job has ended."""
        outcome = job.outcome
        if isinstance(outcome, ServeError):
            self._totals["request_errors"] += 1
        if not isinstance(outcome, Answer):
            return
        self._reasons[outcome.reason] += 1
        usage, drafting = outcome.usage, outcome.drafting
        if job.facts.started:
            self._totals["prompt_tokens"] += usage.prompt_tokens
            self._totals["prefix_cache_queries"] += usage.prompt_tokens
            self._totals["prefix_cache_hits"] += usage.cached_tokens
        self._totals["generation_tokens"] += usage.completion_tokens
        self._totals["spec_decode_num_drafts"] += sum(
            counts.rounds for counts in job.facts.rounds.by_drafter.values()
        )
        self._totals["spec_decode_num_draft_tokens"] += drafting.drafted_tokens
        self._totals["spec_decode_num_accepted_tokens"] += drafting.accepted_tokens
        values = (drafting.ttft_s, drafting.queued_s, job.age_s)
        for (_, histogram), value in zip(self._histograms.values(), values):
            if value is not None:
                histogram.add(value)

    def text(self, running: int, waiting: int) -> str:
        """All of it. running, waiting: requests now."""
        return "\n".join(self._lines(running, waiting)) + "\n"

    def _lines(self, running: int, waiting: int) -> Iterator[str]:
        for name, value, about in (
            ("num_requests_running", running, "Requests that the engine works on."),
            ("num_requests_waiting", waiting, "Requests that wait for their turn."),
        ):
            yield from _head(name, about, "gauge")
            yield f"{PREFIX}{name} {value}"
        for name, about in COUNTERS.items():
            yield from _head(f"{name}_total", about, "counter")
            yield f"{PREFIX}{name}_total {self._totals[name]}"
        yield from _head(
            "request_success_total", "Requests that were answered, by how the answer ended.", "counter"
        )
        for reason, count in sorted(self._reasons.items()):
            yield f'{PREFIX}request_success_total{{finished_reason="{reason}"}} {count}'
        for name, (about, histogram) in self._histograms.items():
            yield from _head(name, about, "histogram")
            yield from histogram.lines(PREFIX + name)


def _head(name: str, about: str, kind: str) -> Iterator[str]:
    yield f"# HELP {PREFIX}{name} {about}"
    yield f"# TYPE {PREFIX}{name} {kind}"
