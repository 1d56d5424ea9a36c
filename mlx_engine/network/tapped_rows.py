"""Outputs of some of the target's layers, which block drafters and EAGLE-3 draft from.

They belong to a conversation in the target's cache: every pass appends its rows, and a rollback drops them again.
A drafter takes the rows that are new to it when it drafts, so plain rounds cost it nothing. What it made of them
stays with the conversation as well, and is there again when the conversation goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

EMBEDDING = -1
"""In place of a layer's index: the scaled embedding, which the first layer receives."""
MOST_ROWS = 4096
"""Older rows are dropped, taken or not: drafters were trained on no more context than this."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a drafter has to do to be in step with the target."""

    kept: int
    """Rows before this position, taken earlier, are still right; those from it on were rolled back."""
    position: int
    """Of the first new row; after `kept` if rows between them were dropped."""
    rows: mx.array | None
    """(1, n, taps * hidden): the new rows, the taps side by side in their order; None: there are none."""


class DrafterContext(Protocol):
    """What a drafter made of the rows that it took."""

    def copied(self) -> DrafterContext:
        """The same for another conversation, which goes on in another way."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of its caches."""
        ...


class TappedRows:
    """The rows that one drafter has not taken yet, and what it made of the others."""

    def __init__(self, layers: Sequence[int]) -> None:
        """layers: whose outputs, in the order in which the drafter reads them; EMBEDDING for the embedding."""
        self.layers = tuple(layers)
        self._chunks: list[list[mx.array]] = []
        """Of each pass: the output of every layer, (1, n, hidden)."""
        self._position = 0
        """Of the first row that is here."""
        self.offset = 0
        """Position behind the newest row."""
        self._kept = 0
        self.context: DrafterContext | None = None
        """The drafter's; None: it has not drafted in this conversation."""

    def anew(self) -> TappedRows:
        """For a conversation of which nothing was read."""
        return TappedRows(self.layers)

    def copied(self) -> TappedRows:
        """For a conversation that begins like this one."""
        other = self.anew()
        other._chunks, other._position, other._kept = list(self._chunks), self._position, self._kept
        other.offset = self.offset
        other.context = self.context.copied() if self.context else None
        return other

    def append(self, outputs: Mapping[int, mx.array], first_position: int) -> None:
        """Add the rows of a pass: the outputs of all tapped layers, (1, n, hidden) each."""
        if first_position != self.offset:  # rows before it were read without taps, as those of a saved cache
            self._chunks, self._position, self.offset = [], first_position, first_position
        self._chunks.append([outputs[layer] for layer in self.layers])
        self.offset += self._chunks[-1][0].shape[1]
        while len(self._chunks) > 1 and self.offset - self._position - self._chunks[0][0].shape[1] >= MOST_ROWS:
            self._position += self._chunks.pop(0)[0].shape[1]

    def rollback(self, frontier: int) -> None:
        """Drop the rows from this position on."""
        self._kept = min(self._kept, frontier)
        excess = self.offset - max(frontier, self._position)
        self.offset = min(self.offset, frontier)
        while excess > 0:
            rows = self._chunks[-1][0].shape[1]
            if rows > excess:
                self._chunks[-1] = [output[:, : rows - excess] for output in self._chunks[-1]]
                break
            self._chunks.pop()
            excess -= rows
        if frontier < self._position:
            self._position = frontier

    def take(self) -> Taken:
        """Hand out the rows that were appended since the last call."""
        chunks = [mx.concatenate(chunk, axis=-1) for chunk in self._chunks]
        rows = mx.concatenate(chunks, axis=1)[:, -MOST_ROWS:] if chunks else None
        end = self.offset
        taken = Taken(self._kept, end - (0 if rows is None else rows.shape[1]), rows)
        self._chunks, self._position, self._kept = [], end, end
        return taken

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and of the drafter's caches."""
        rows_bytes = sum(output.nbytes for chunk in self._chunks for output in chunk)
        return rows_bytes + (self.context.nbytes if self.context else 0)

    def arrays(self) -> list[mx.array]:
        """The arrays to evaluate with the pass that they belong to."""
        return self._chunks[-1] if self._chunks else []
