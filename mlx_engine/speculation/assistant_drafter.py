"""Drafting with the multi-token-prediction assistant that was trained for a target.

Each step reads the target's embedding of a token, a hidden state and the target's own keys and values. The
assistant keeps nothing of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import mlx.core as mx

from mlx_engine.files.config_file import ASSISTANT_TYPES
from mlx_engine.network.assistant import Assistant, load_assistant
from mlx_engine.network.checkpoint import OnRead
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.precision import convert_float16
from mlx_engine.network.target import Target, TargetFacts
from mlx_engine.protocol.errors import PairMismatchError
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.drafter import DraftedTarget, DrafterSource, Frontier, draft_one_by_one
from mlx_engine.speculation.reduced_head import DraftHead, ReducedHead
from mlx_engine.speculation.sampling import Distribution, RandomStream, Sampler

DRAFT_POSITION_OFFSET = 0
"""Position of a round's draft steps, relative to the number of tokens in the target's cache.

0 is the position of the unread token, as in transformers and llama.cpp; -1 is that of the last token read, as
in vLLM and ollama. Nobody has published a comparison on real weights.
"""


class AssistantDrafter:
    """A `Drafter` over an `Assistant` and the target it belongs to."""

    name = "assistant"

    def __init__(self, assistant: Assistant, target: Target, frequent: Sequence[int] = ()) -> None:
        """frequent: as in DrafterSource."""
        self._assistant = assistant
        self._target = target
        self._reduced: ReducedHead | None = None
        if frequent:
            self._reduced = ReducedHead(assistant.model.embed_tokens, frequent, assistant.vocab_size)
        self._head: DraftHead = self._reduced or assistant

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        """Nothing to read: the target's caches are all it needs."""
        if self._reduced:
            self._reduced.forget()
        return iter(())

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        """See Drafter."""
        return Offer(limit)

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. All steps of a round are at the frontier's position."""
        if self._reduced:
            self._reduced.read(committed)
        shared_kv = cache.shared_kv()
        frontier_position = cache.frontier + DRAFT_POSITION_OFFSET
        hidden = frontier.hidden

        def step(token: mx.array, seen: mx.array | None, position: int) -> Distribution:
            nonlocal hidden
            state, hidden = self._assistant(self._target.embed(token[None]), hidden, shared_kv, frontier_position)
            if sampler.is_argmax:
                return Distribution(self._head.argmax(state)[0].astype(mx.int32), None)
            return sampler.draw(self._head.logits(state)[0], position, RandomStream.DRAFT, seen)

        return draft_one_by_one(step, frontier, len(committed), length)

    def rollback(self, rejected: int) -> None:
        """Nothing to forget."""


def reads(source: DrafterSource) -> bool:
    """The folder contains an assistant."""
    return source.config.get("model_type") in ASSISTANT_TYPES


def load(source: DrafterSource, target: DraftedTarget, on_read: OnRead) -> AssistantDrafter:
    """See LoadDrafter."""
    network = load_assistant(
        source.folder, source.bits, on_read, target.network.is_compiled, target.network.is_float32
    )
    check_pair(network, target.network.facts, (source.name, str(target.folder)))
    network.vocab_size = target.network.facts.vocab_size
    if not target.network.has_float16:
        convert_float16(network)  # beside another dtype everything would be computed in float32
    return AssistantDrafter(network, target.network, source.frequent)


def check_pair(assistant: Assistant, target: TargetFacts, names: tuple[str, str]) -> None:
    """Raise PairMismatchError if the assistant was made for another target. `names`: drafter, target."""
    text = assistant.config.text
    drafter_name, target_name = names
    comparisons: list[tuple[str, object, object]] = [
        ("a hidden size of", assistant.config.backbone_hidden_size, target.hidden_size)
    ]
    if text.vocab_size < target.vocab_size:  # more rows are padding
        comparisons.append(("a vocabulary of", text.vocab_size, target.vocab_size))
    for kind in sorted(set(text.layer_types or ())):
        head_dim = text.head_dim if kind == "sliding_attention" else (text.global_head_dim or text.head_dim)
        geometry = target.kv_geometry.get(kind)
        comparisons.append((f"a {kind} head size of", head_dim, geometry[1] if geometry else "no such layer"))
        if geometry and text.num_attention_heads % geometry[0]:
            comparisons.append((f"{kind} heads in groups of", text.num_attention_heads, geometry[0]))
    for what, expected, actual in comparisons:
        if expected != actual:
            raise PairMismatchError(
                f"The drafter {drafter_name} was made for a target with {what} {expected}; "
                f"{target_name} has {actual}. Use the -assistant folder of the same variant, or --drafter none."
            )
