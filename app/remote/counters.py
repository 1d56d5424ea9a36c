"""The counters that some servers publish for monitoring, in the text format of Prometheus.

They count all requests since the server's start, so the growth during a reply is the reply's own only if no other
request was answered meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Counters = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RequestCounters:
    """Which of a server's metrics tell how many requests it answers."""

    finished: str
    """A counter of those that it has answered."""
    running: str | None = None
    """A gauge of those that it is answering."""


def read_counters(text: str) -> Counters:
    """Every metric by name; those with several labels are added up."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        name_and_labels, _, number = line.rpartition(" ")
        if line.startswith("#") or not name_and_labels:
            continue
        try:
            value = float(number)
        except ValueError:
            continue
        name = name_and_labels.partition("{")[0].strip()
        if math.isfinite(value):
            sums[name] = sums.get(name, 0.0) + value
    return sums


def growth(before: Counters, after: Counters, requests: RequestCounters) -> Counters:
    """By how much each counter has grown; nothing unless exactly one request was answered in between, alone."""
    running, finished = requests.running, requests.finished
    had_company = running is not None and (before.get(running, 0.0) > 0 or after.get(running, 0.0) > 0)
    if had_company or finished not in after or after[finished] - before.get(finished, 0.0) != 1:
        return {}
    return {name: value - before.get(name, 0.0) for name, value in after.items()}
