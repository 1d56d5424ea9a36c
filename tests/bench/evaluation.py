"""How long the leading thread works inside MLX's own evaluation, which both sides of a comparison call alike.

Whatever is read from an array is evaluated first, so reading counts as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx

EVALUATING = ("eval", "async_eval")
READING = ("item", "tolist", "__int__", "__float__", "__bool__", "__index__", "__array__")


class EvaluationClock:
    """Counts from where it is made on, in this process."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        """Processor time of the thread that called."""
        self._depth = 0
        for owner, names in ((mx, EVALUATING), (mx.array, READING)):
            for name in names:
                if hasattr(owner, name):
                    setattr(owner, name, self._counting(getattr(owner, name)))

    def _counting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **settings: Any) -> Any:
            begun_s = time.thread_time()
            self._depth += 1
            try:
                return call(*arguments, **settings)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.spent_s += time.thread_time() - begun_s

        return counted
