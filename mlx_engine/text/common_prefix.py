"""Where two texts, or two lists of tokens, part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any


def common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many elements two sequences share before they first differ."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))
