"""What the cache of one layer does.

It has the interface that mlx-lm's layers expect: `offset`, `update_and_fetch`, `make_mask`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import mlx.core as mx

Rows = tuple[mx.array, mx.array]
"""Keys and values, each (1, kv_heads, length, head_dim)."""
Mask = mx.array | Literal["causal"] | None


@dataclass(frozen=True, slots=True)
class LayerSnapshot:
    """What one layer needs to go on from the frontier where the snapshot was taken."""

    oldest_frontier: int
    """The earliest position that a rollback can reach from there."""
    rows: Rows | None = None
    """Copies of the rows that the layer may drop; None if it drops none."""


class LayerCache(Protocol):
    """The keys and values of one attention layer."""

    offset: int
    """Tokens read so far, which is also the position of the next token."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Rows:
        """Append rows; return all rows that they may attend to, themselves included."""
        ...

    def make_mask(self, rows: int, return_array: bool = False, window_size: int | None = None) -> Mask:
        """The mask for `rows` rows that are about to be appended, over what `update_and_fetch` will return."""
        ...

    def rollback(self, tokens: int) -> None:
        """Drop the newest `tokens` rows, exactly. Raises RollbackError if that is impossible."""
        ...

    @property
    def oldest_frontier(self) -> int:
        """The earliest position that a rollback can reach."""
        ...

    def snapshot(self, frontier: int) -> LayerSnapshot:
        """A snapshot at `frontier`, which a rollback must still reach. Valid until one goes further back."""
        ...

    def view(self) -> Rows:
        """The rows that a drafter may attend to, not copied."""
        ...

    def rows(self, begin: int, end: int) -> Rows:
        """The rows of these positions, which must be in the buffer; not copied."""
        ...

    def replace(self, parts: Sequence[Rows], frontier: int, capacity: int) -> None:
        """Contain these rows alone, in order; the last one is of the position before `frontier`.

        capacity: rows that it should soon have room for.
        """
        ...

    @property
    def window_rows(self) -> int:
        """Rows before a frontier that are needed to continue there; 0: all."""
        ...

    @property
    def held_from(self) -> int:
        """Position of the oldest row that is needed to go on later."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        ...
