"""One side of the comparison as a child process: a JSON object a line, in and out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.bench.evaluation import EvaluationClock

Request = dict[str, Any]
Reply = dict[str, Any]
Handler = Callable[[Request], Reply]

EVALUATION = EvaluationClock()


def serve(handlers: dict[str, Handler]) -> None:
    """Answer requests by their `op` until the input ends. What libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = handlers[request["op"]](request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


@dataclass(frozen=True, slots=True)
class Moment:
    """What the clocks of this process said when tokens came, in seconds."""

    wall_s: float
    cpu_s: float
    """Processor time of all threads."""
    host_s: float
    """Processor time of the thread that leads; what MLX evaluates runs on threads of its own."""
    evaluation_s: float
    """Of that, inside MLX's own evaluation: handing over what was put together, and reading results."""

    @classmethod
    def now(cls) -> Moment:
        """Read them."""
        return cls(time.perf_counter(), time.process_time(), time.thread_time(), EVALUATION.spent_s)


class Timeline:
    """When the tokens of a reply came. Decoding is measured from the first of them on, prompt not counted."""

    def __init__(self) -> None:
        self._begun = self._first = self._last = Moment.now()
        self.first_tokens = 0
        self.token_ids: list[int] = []

    def add(self, token_ids: list[int]) -> None:
        """Tokens that have just come, together."""
        self._last = Moment.now()
        if not self.token_ids:
            self._first = self._last
            self.first_tokens = len(token_ids)
        self.token_ids += token_ids

    def facts(self) -> Reply:
        """The reply in numbers, prompt not counted; the clocks are those of `Moment`."""
        begun, first, last = self._begun, self._first, self._last
        host_s, evaluated_s = last.host_s - first.host_s, last.evaluation_s - first.evaluation_s
        return {
            "token_ids": self.token_ids,
            "tokens": len(self.token_ids) - self.first_tokens,
            "decode_s": last.wall_s - first.wall_s,
            "host_s": host_s,
            "own_host_s": host_s - evaluated_s,
            "cpu_s": last.cpu_s - first.cpu_s,
            "ttft_s": first.wall_s - begun.wall_s,
            "ttft_cpu_s": first.cpu_s - begun.cpu_s,
        }
