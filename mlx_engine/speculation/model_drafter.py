"""Drafting with a smaller Gemma 4 of the same tokenizer. It reads the conversation into a cache of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import mlx.core as mx

from mlx_engine.files.config_file import TARGET_TYPES
from mlx_engine.network.cache_budget import CacheBudget
from mlx_engine.network.checkpoint import OnRead
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.prefix import PREFILL_CHUNK_TOKENS, PrefixCache
from mlx_engine.network.target import Target, load_target
from mlx_engine.protocol.errors import ModelFolderError, PairMismatchError
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.drafter import DraftedTarget, DrafterSource, Frontier, draft_one_by_one
from mlx_engine.speculation.sampling import Distribution, RandomStream, Sampler
from mlx_engine.text.prompt import ChatFormat


class ModelDrafter:
    """A `Drafter` over a complete model."""

    name = "model"

    def __init__(self, model: Target, vocab_size: int | None = None, budget: CacheBudget | None = None) -> None:
        """vocab_size: the target's, which may have fewer rows than the drafter. budget: of all conversations."""
        self._model = model
        self._vocab_size = vocab_size or model.facts.vocab_size
        self._prefix = PrefixCache(model, budget=budget)

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        """See Drafter."""
        self._prefix.resume(prompt)
        return self._prefix.prefill(branch_points)

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        """See Drafter."""
        return Offer(limit)

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. Starts by reading what was committed since it last drafted."""
        prefix = self._prefix
        prefix.tokens.extend(committed[len(prefix.tokens) :])
        while prefix.cache.frontier < len(committed):
            hidden = prefix.read(committed[prefix.cache.frontier :][:PREFILL_CHUNK_TOKENS])
            mx.async_eval(hidden)

        def step(token: mx.array, seen: mx.array | None, position: int) -> Distribution:
            is_frontier = position == len(committed)
            state = hidden if is_frontier else self._model.forward(token[None], prefix.cache)
            logits = self._model.logits(state)[:, : self._vocab_size]
            return sampler.draw(logits, position, RandomStream.DRAFT, seen)

        return draft_one_by_one(step, frontier, len(committed), length)

    def rollback(self, rejected: int) -> None:
        """See Drafter. The last token of a proposal was drawn but never read."""
        self._prefix.cache.rollback(max(0, rejected - 1))


def load(source: DrafterSource, target: DraftedTarget, on_read: OnRead) -> ModelDrafter:
    """See LoadDrafter."""
    kind = source.config.get("model_type")
    if kind not in TARGET_TYPES:  # before the tokenizer, which other kinds do not have
        raise ModelFolderError(
            f"{source.folder} is a {str(kind)[:40]!r} model, and no drafter that Slipstream can run. Use an "
            "assistant, DSpark, DFlash, EAGLE-3 or a smaller Gemma 4, or --drafter none."
        )
    format = ChatFormat(source.folder)
    model = load_target(source.folder, source.bits, on_read, target.network.is_compiled, target.network.is_float32)
    format.check_fits(model.facts.vocab_size)
    vocab_size = target.network.facts.vocab_size
    if model.facts.vocab_size < vocab_size:
        raise PairMismatchError(
            f"The draft model {source.name} cannot read every token: its tables have {model.facts.vocab_size} "
            f"rows, those of {target.folder} {vocab_size}. Use a smaller model of the same family, or "
            "--drafter lookup."
        )
    if not format.has_same_tokens(target.format):
        raise PairMismatchError(
            f"The draft model {source.name} has another tokenizer than {target.folder} "
            f"({format.vocab_size} and {target.format.vocab_size} tokens). "
            "Use a smaller model of the same family, or --drafter lookup."
        )
    if model.has_float16:
        model.widen_float16()  # a draft model that overflows would be of no use
    return ModelDrafter(model, vocab_size, target.budget)
