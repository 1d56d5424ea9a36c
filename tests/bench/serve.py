"""One side of the comparison as a child process: a JSON object a line, in and out. Standard library only."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Request = dict[str, Any]
Reply = dict[str, Any]
Handler = Callable[[Request], Reply]


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


class Timeline:
    """When the tokens of a reply came. Decoding is measured from the first of them on, prompt not counted."""

    def __init__(self) -> None:
        self._begun_s, self._begun_cpu_s = time.perf_counter(), time.process_time()
        self._first_s = self._last_s = 0.0
        self._first_host_s = self._last_host_s = 0.0
        self._first_cpu_s = self._last_cpu_s = 0.0
        self.first_tokens = 0
        self.token_ids: list[int] = []

    def add(self, token_ids: list[int]) -> None:
        """Tokens that have just come, together."""
        self._last_s, self._last_host_s = time.perf_counter(), time.thread_time()
        self._last_cpu_s = time.process_time()
        if not self.token_ids:
            self._first_s, self._first_host_s = self._last_s, self._last_host_s
            self._first_cpu_s = self._last_cpu_s
            self.first_tokens = len(token_ids)
        self.token_ids += token_ids

    def facts(self) -> Reply:
        """The reply in numbers, prompt not counted.

        host_s: processor time of the thread that leads; what MLX evaluates runs on threads of its own.
        cpu_s: processor time of all threads.
        """
        return {
            "token_ids": self.token_ids,
            "tokens": len(self.token_ids) - self.first_tokens,
            "decode_s": self._last_s - self._first_s,
            "host_s": self._last_host_s - self._first_host_s,
            "cpu_s": self._last_cpu_s - self._first_cpu_s,
            "ttft_s": self._first_s - self._begun_s,
            "ttft_cpu_s": self._first_cpu_s - self._begun_cpu_s,
        }
