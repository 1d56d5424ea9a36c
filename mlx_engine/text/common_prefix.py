"""Where two texts, or two lists of tokens, part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

BLOCK = 1024


def common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many elements two sequences share before they first differ."""
    # Block by block: Python compares slices of long conversations much faster than a loop does their elements.
    for begin in range(0, min(len(one), len(other)), BLOCK):
        own, its = one[begin : begin + BLOCK], other[begin : begin + BLOCK]
        if own != its:
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(own, its)))
            if same < BLOCK:
                return begin + same
    return min(len(one), len(other))
