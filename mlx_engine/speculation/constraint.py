"""What a reply may consist of, applied to the target's logits before anything is drawn from them.

Drafts are proposed freely. A draft that is not allowed has no probability in the target's row, so the rejection
rule never accepts it, and every token is distributed as in plain decoding with the same masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import mlx.core as mx


class Constraint(Protocol):
    """Follows a reply token by token, on the host."""

    def masks(self, draft: Sequence[int]) -> list[bytes]:
        """A bit for each token, lowest first, in rows: before each draft, and after the last. Changes nothing."""
        ...

    def forced(self, limit: int) -> list[int]:
        """The next tokens, as far as only one may come at each place; at most `limit`. Changes nothing."""
        ...

    def advance(self, tokens: Sequence[int]) -> None:
        """Take tokens that were committed."""
        ...


def masked(logits: mx.array, masks: Sequence[bytes]) -> mx.array:
    """Logits (rows, vocab), -inf where a row's bit is not set."""
    vocab = logits.shape[-1]
    rows = mx.array(memoryview(b"".join(masks))).reshape(len(masks), -1)  # type: ignore[arg-type]
    bits = (rows[..., None] >> mx.arange(8, dtype=mx.uint8)) & 1
    allowed = bits.reshape(len(masks), -1)[:, :vocab].astype(mx.bool_)
    return mx.where(allowed, logits, mx.array(-mx.inf, logits.dtype))
