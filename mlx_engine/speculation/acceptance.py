"""The rejection rule: which drafts are accepted, and which token follows them.

Speculative sampling after Leviathan et al. 2023 (Algorithm 1) and Chen et al. 2023 (Algorithm 2). A draft x from q
is accepted with probability min(1, p(x) / q(x)). At the first rejection the next token is drawn from the residual
max(p - q, 0), normalised; if all drafts are accepted, a bonus token is drawn from p after the last of them. Every
committed token is then distributed as p, whatever q was, as long as x was really drawn from q.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from mlx_engine.speculation.sampling import Distribution, draw


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the rule, still on the device."""

    accepted: mx.array
    """() int32: how many drafts are accepted, counted from the start."""
    token: mx.array
    """(1,) int32: the target's own token after them, residual or bonus."""


def accept(draft: Distribution, target: Distribution, keys: tuple[mx.array, mx.array]) -> Verdict:
    """Judge K drafts by the target's K + 1 rows; row i is the target's distribution at draft i.

    keys: for the accept decisions, and for the token after them. Where the target's rows are point masses (greedy
    and coupled sampling) a draft is accepted if it is the target's token, and no randomness is used.
    """
    length = len(draft.tokens)
    if length == 0:
        return Verdict(mx.array(0, dtype=mx.int32), target.tokens)
    if target.probs is None:
        accepted = _count_leading(draft.tokens == target.tokens[:length])
        return Verdict(accepted, mx.take(target.tokens, accepted[None]))
    accepted = _count_leading(_is_accepted(draft, target.probs[:length], keys[0]))
    weights = _next_weights(draft, target.probs, accepted)
    return Verdict(accepted, draw(weights, keys[1]))


def _is_accepted(draft: Distribution, p: mx.array, key: mx.array) -> mx.array:
    """(K,) bool: u < p(x) / q(x), without the division."""
    tokens = draft.tokens[:, None]
    p_x = mx.take_along_axis(p, tokens, axis=-1).squeeze(-1)
    u = mx.random.uniform(shape=p_x.shape, key=key)
    if draft.probs is None:
        return u < p_x
    return u * mx.take_along_axis(draft.probs, tokens, axis=-1).squeeze(-1) < p_x


def _next_weights(draft: Distribution, p: mx.array, accepted: mx.array) -> mx.array:
    """(1, vocab) unnormalised: the residual at the first rejected draft, or p after the last draft."""
    length = len(draft.tokens)
    rejected_row = mx.minimum(accepted, length - 1)[None]
    p_row = mx.take(p, accepted[None], axis=0)
    if draft.probs is None:
        q_row = (mx.arange(p.shape[-1]) == mx.take(draft.tokens, rejected_row)[:, None]).astype(p.dtype)
    else:
        q_row = mx.take(draft.probs, rejected_row, axis=0)
    residual = mx.maximum(p_row - q_row, 0)
    # Where p and q agree, rounding can leave no residual for a rejected draft; p is then the right answer.
    is_residual = (accepted < length) & (mx.sum(residual) > 0)
    return mx.where(is_residual, residual, p_row)


def _count_leading(flags: mx.array) -> mx.array:
    """() int32: how many flags are true before the first false one."""
    return mx.sum(mx.cumprod(flags.astype(mx.int32))).astype(mx.int32)
