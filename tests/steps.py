"""Counts how much work a call does, so that a test can double its input without measuring time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, SupportsIndex


def steps(run: Callable[[], object]) -> int:
    """The bytecode instructions that a call executes, in libraries too. Does not see what C code does in one."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "call":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


class SearchedText(str):
    """A text that counts the characters that `find` looks at."""

    searched = 0

    def find(self, part: str, start: SupportsIndex | None = None, end: SupportsIndex | None = None) -> int:
        found = super().find(part, start, end)
        begin = int(start) if start is not None else 0
        self.searched += (found if found >= 0 else len(self)) - begin + 1
        return found
