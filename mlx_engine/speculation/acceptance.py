"""The rejection rule: which drafted tokens stand, and what comes after them.

Speculative sampling after Leviathan et al. 2023 (Algorithm 1) and Chen et al. 2023 (Algorithm 2). Draft x
from q stands with probability min(1, p(x) / q(x)); at the first that falls, the token is drawn from the
residual max(p - q, 0), normalised; when all stand, a bonus token is drawn from p after the last of them.
Every committed token is then distributed as p, whatever q was, as long as x was really drawn from q.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from mlx_engine.speculation.sampling import Distribution, draw


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a round, still on the device."""

    accepted: mx.array
    """() int32: how many drafts stand, from the first on."""
    token: mx.array
    """(1,) int32: the target's own token after them (residual or bonus)."""


def accept(draft: Distribution, target: Distribution, keys: tuple[mx.array, mx.array]) -> Verdict:
    """Judge K drafts by the target's K + 1 rows; row i is the target's distribution at draft i.

    keys: for the chances of the drafts, and for the token after them. Where the target's rows are one-point
    distributions (greedy and coupled sampling) the rule is equality, and nothing is left to chance.
    """
    length = len(draft.tokens)
    if length == 0:
        return Verdict(mx.array(0, dtype=mx.int32), target.tokens)
    if target.probs is None:
        accepted = _leading(draft.tokens == target.tokens[:length])
        return Verdict(accepted, mx.take(target.tokens, accepted[None]))
    stands = _stands(draft, target.probs[:length], keys[0])
    accepted = _leading(stands)
    weights = _next_weights(draft, target.probs, accepted)
    return Verdict(accepted, draw(weights, keys[1]))


def _stands(draft: Distribution, p: mx.array, key: mx.array) -> mx.array:
    """(K,) bool: u < p(x) / q(x), without the division."""
    tokens = draft.tokens[:, None]
    p_x = mx.take_along_axis(p, tokens, axis=-1).squeeze(-1)
    u = mx.random.uniform(shape=p_x.shape, key=key)
    if draft.probs is None:
        return u < p_x
    return u * mx.take_along_axis(draft.probs, tokens, axis=-1).squeeze(-1) < p_x


def _next_weights(draft: Distribution, p: mx.array, accepted: mx.array) -> mx.array:
    """(1, vocab) unnormalised: the residual at the draft that fell, or p after the last draft."""
    length = len(draft.tokens)
    fell = mx.minimum(accepted, length - 1)[None]
    p_row = mx.take(p, accepted[None], axis=0)
    if draft.probs is None:
        q_row = (mx.arange(p.shape[-1]) == mx.take(draft.tokens, fell)[:, None]).astype(p.dtype)
    else:
        q_row = mx.take(draft.probs, fell, axis=0)
    residual = mx.maximum(p_row - q_row, 0)
    # Rounding can leave a rejected draft no residual at all where p and q agree; p is then the answer.
    is_residual = (accepted < length) & (mx.sum(residual) > 0)
    return mx.where(is_residual, residual, p_row)


def _leading(stands: mx.array) -> mx.array:
    """() int32: how many are true before the first that is not."""
    return mx.sum(mx.cumprod(stands.astype(mx.int32))).astype(mx.int32)
