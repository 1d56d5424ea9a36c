"""An assistant's head over few tokens: the most frequent ones, and those that the conversation contains.

The head of the assistants of 12B, 26B-A4B and 31B has a row for each of 262,144 tokens. These are most of the
bytes that a draft step reads, and most of any text consists of a few of them (FR-Spec: Zhao et al. 2025). Of the
others a text repeats those that it has used before, so these get rows as well. A token without a row is not
drafted: its q is 0, and it can only be the target's own token of a round.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import mlx.core as mx
import mlx.nn as nn

from mlx_engine.speculation.draft_vocabulary import DraftVocabulary

BLOCK_ROWS = 64
"""The conversation's rows grow by so many, so that their sizes, and the buffers kept for them, are few."""


class DraftHead(Protocol):
    """From an assistant's hidden states to scores of the target's tokens."""

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits (1, L, vocab) of hidden states (1, L, hidden); -inf for tokens that are not drafted."""
        ...

    def argmax(self, hidden: mx.array) -> mx.array:
        """The token with the largest logit per row, (1, L)."""
        ...


class ReducedHead:
    """A `DraftHead` over some rows of a table, which may be quantized. Keeps the table for the rows to come."""

    def __init__(self, table: nn.Module, frequent: Sequence[int], vocab_size: int) -> None:
        """frequent: the ids that always have a row. vocab_size: of the target."""
        self._table = table
        self._frequent = list(frequent)
        self._frequent_rows = _rows(table, self._frequent)
        mx.eval(self._frequent_rows.parameters())
        self._vocab_size = vocab_size
        self.forget()

    def forget(self) -> None:
        """Begin another conversation."""
        self._has_row = set(self._frequent)
        self._others: list[int] = []
        self._read_tokens = 0
        self._use_others()

    def read(self, committed: Sequence[int]) -> None:
        """Give rows to the tokens of the conversation, which goes on where the last call ended."""
        new = [token for token in dict.fromkeys(committed[self._read_tokens :]) if token not in self._has_row]
        self._read_tokens = len(committed)
        if new:
            self._has_row.update(new)
            self._others += new
            self._use_others()

    def logits(self, hidden: mx.array) -> mx.array:
        """See DraftHead."""
        return self._vocabulary.spread(self._scores(hidden)[0])[None]

    def argmax(self, hidden: mx.array) -> mx.array:
        """See DraftHead. No logits for the whole vocabulary."""
        return self._vocabulary.tokens(mx.argmax(self._scores(hidden), axis=-1))

    def _scores(self, hidden: mx.array) -> mx.array:
        scores = [rows.as_linear(hidden) for rows in (self._frequent_rows, self._other_rows) if rows is not None]
        return mx.concatenate(scores, axis=-1)

    def _use_others(self) -> None:
        # A row that is there twice has the same score twice, which changes neither the largest nor what is spread.
        padded = self._others + self._others[:1] * (-len(self._others) % BLOCK_ROWS)
        self._other_rows = _rows(self._table, padded) if padded else None
        ids = mx.array([*self._frequent, *padded], dtype=mx.int32)
        self._vocabulary = DraftVocabulary(ids, self._vocab_size)


def _rows(table: nn.Module, ids: Sequence[int]) -> nn.Module:
    """A table of these rows, bit for bit: a quantized row is packed, and has its scales, by itself."""
    rows = copy.copy(table)
    at = mx.array(list(ids), dtype=mx.int32)
    rows.update({name: array[at] if array.ndim else array for name, array in table.parameters().items()})
    return rows
