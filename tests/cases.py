"""How many cases a test tries: few where every change waits for it, all with `--long`."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

is_long = False
"""Set by conftest.py before any test is read."""


def cases(few: T, many: T) -> T:
    """What to try: a number of cases, or the cases themselves."""
    return many if is_long else few
