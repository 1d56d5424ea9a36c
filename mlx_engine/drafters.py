"""Drafters propose the tokens that the target then verifies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from mlx_engine.assistant import Assistant
from mlx_engine.errors import PairMismatchError
from mlx_engine.kv_cache import TargetCache
from mlx_engine.sampling import Distribution, Randomness, Sampler
from mlx_engine.target import Target, TargetFacts

DRAFT_POSITION_OFFSET = 0
"""Position of a round's draft steps, relative to the number of tokens in the target's cache.

0 is the unread token's own position, as in transformers and llama.cpp; -1 is the last read token's, as in
vLLM and ollama. Nobody has published a comparison on real weights.
"""


@dataclass(frozen=True, slots=True)
class Frontier:
    """Where a reply stands: one token is committed that the target has not read yet."""

    token: mx.array
    """(1,) int32: that token."""
    hidden: mx.array
    """(1, 1, hidden): the target's last hidden state, of the token before it."""


class Drafter(Protocol):
    """Proposes tokens; must not change the cache, and keeps nothing that a rollback would have to undo."""

    def propose(
        self, frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler, randomness: Randomness
    ) -> Distribution:
        """`length` tokens to follow the frontier (1 to 16), each with what it was drawn from; not evaluated."""
        ...


class AssistantDrafter:
    """The MTP assistant: each step reads the target's embedding of a token, a hidden state and the shared K/V."""

    def __init__(self, assistant: Assistant, target: Target) -> None:
        self._assistant = assistant
        self._target = target

    def propose(
        self, frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler, randomness: Randomness
    ) -> Distribution:
        """See Drafter. The position stays that of the frontier for the whole round."""
        shared_kv = cache.shared_kv()
        position = cache.frontier + DRAFT_POSITION_OFFSET
        token, hidden = frontier.token, frontier.hidden
        tokens, probs = [], []
        for _ in range(length):
            embedding = self._target.embed(token[None])
            state, hidden = self._assistant(embedding, hidden, shared_kv, position)
            drawn = self._draw(state, sampler, randomness)
            token = drawn.tokens
            tokens.append(token)
            probs.append(drawn.probs)
        dense = [p for p in probs if p is not None]
        return Distribution(mx.concatenate(tokens), mx.concatenate(dense) if dense else None)

    def _draw(self, state: mx.array, sampler: Sampler, randomness: Randomness) -> Distribution:
        if sampler.is_greedy:
            return Distribution(self._assistant.argmax(state)[0].astype(mx.int32), None)
        return sampler.draw(self._assistant.logits(state)[0], randomness)


def check_pair(assistant: Assistant, target: TargetFacts, names: tuple[str, str]) -> None:
    """Raise PairMismatchError if the assistant was made for another target. `names`: drafter, target."""
    text = assistant.config.text
    drafter_name, target_name = names
    numbers: list[tuple[str, object, object]] = [
        ("a hidden size of", assistant.config.backbone_hidden_size, target.hidden_size),
        ("a vocabulary of", text.vocab_size, target.vocab_size),
    ]
    for kind in sorted(set(text.layer_types or ())):
        head_dim = text.head_dim if kind == "sliding_attention" else (text.global_head_dim or text.head_dim)
        own = target.kv_geometry.get(kind)
        numbers.append((f"a {kind} head size of", head_dim, own[1] if own else "no such layer"))
        if own and text.num_attention_heads % own[0]:
            numbers.append((f"{kind} heads in groups of", text.num_attention_heads, own[0]))
    for what, expected, found in numbers:
        if expected != found:
            raise PairMismatchError(
                f"The drafter {drafter_name} was made for a target with {what} {expected}; "
                f"{target_name} has {found}. Use the -assistant folder of the same variant, or --drafter none."
            )
