"""Figures of a device and a loaded pair, from a few passes each. Defaults can be chosen from them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import msgspec

JUMP = 1.15
"""A row that makes an operation at least this many times as slow as one row less did begins a step."""


class MicroFigures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times are the shortest of several rounds. What could not be measured is missing."""

    product_shape: tuple[int, int] = (0, 0)
    """Outputs and inputs of the 4-bit matrix."""
    product_s: dict[int, float] = {}
    """By number of rows: one product of the rows with the quantized matrix."""
    attention_keys: int = 0
    attention_s: dict[int, dict[int, float]] = {}
    """By head size and number of rows: one attention with the model's numbers of heads."""
    verify_s: dict[int, float] = {}
    """By number of rows: one pass of the loaded model and its LM head."""
    drafter_step_s: dict[str, float] = {}
    """By kind of drafter: one drafted token."""
    prefill_s: dict[int, float] = {}
    """By number of rows: one chunk at the beginning of a prompt."""
    prefill_peak_bytes: dict[int, int] = {}
    """By number of rows: the most that MLX had allocated in that chunk."""
    peak_memory_bytes: int = 0
    """The most that MLX had allocated in all of it."""


def row_steps(times_s: Mapping[int, float]) -> tuple[int, ...]:
    """The numbers of rows at which an operation is clearly slower than with one row less."""
    rows = sorted(times_s)
    return tuple(row for before, row in pairwise(rows) if times_s[row] >= JUMP * times_s[before])
