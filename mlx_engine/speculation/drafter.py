"""What every drafter does: propose tokens for the target to verify, and forget those that were rejected.

`drafters.py` lists the kinds; each has a file of its own. Imports no kind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from mlx_engine.files.config_file import read_config
from mlx_engine.network import checkpoint
from mlx_engine.network.cache_budget import CacheBudget
from mlx_engine.network.checkpoint import OnRead
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.precision import convert_float16, convert_to_float32
from mlx_engine.network.target import Gemma4Target
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.sampling import Distribution, Sampler, history_after
from mlx_engine.text.prompt import ChatFormat


@dataclass(frozen=True, slots=True)
class Frontier:
    """The end of the committed text: its last token is the only one that the target has not read yet."""

    token: mx.array
    """(1,) int32: that token."""
    hidden: mx.array
    """(1, 1, hidden): the target's hidden state at the token before it."""
    seen: mx.array | None
    """(1, vocab) bool: which tokens the reply contains; None unless the sampler needs its history."""


class Drafter(Protocol):
    """Proposes tokens. Never changes the target's cache; keeps its own cache, if any, in step by `rollback`."""

    @property
    def name(self) -> str:
        """Of its kind, for people and for what is learned of it."""
        ...

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        """Read as much of the prompt as this kind needs, in the steps of PrefixCache.prefill."""
        ...

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        """What it can propose after `committed`: at most `limit` tokens. Asking changes nothing."""
        ...

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """Draft `length` tokens after the frontier, each with the distribution it was drawn from.

        Never waits for the device. committed: the conversation, ending in the frontier's token. cache: the
        target's, one token behind. length: from 1 to what it offered.
        """
        ...

    def rollback(self, rejected: int) -> None:
        """Forget the last `rejected` tokens of the proposal: they did not become part of the reply."""
        ...


@dataclass(frozen=True)
class DrafterSource:
    """What a pair names as its drafter: a model folder, or the name of a kind that needs no folder."""

    name: str
    bits: int | None = None
    """Quantize the weights to this many bits while loading; None: keep them as they are."""
    frequent: tuple[int, ...] = ()
    """Draft none but these tokens, and those of the conversation; empty: any."""

    @property
    def folder(self) -> Path:
        """Only for kinds that have a folder."""
        return Path(self.name)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The folder's config.json. Raises ModelFolderError."""
        return read_config(self.folder)


@dataclass(frozen=True, slots=True)
class DraftedTarget:
    """The target that a drafter is loaded for."""

    folder: Path
    network: Gemma4Target
    format: ChatFormat
    budget: CacheBudget = field(default_factory=CacheBudget)
    """Of the conversations that target and drafters keep in memory."""


LoadDrafter = Callable[[DrafterSource, DraftedTarget, OnRead], Drafter]
"""Loads one kind. Raises ModelFolderError, or PairMismatchError if the drafter does not fit the target."""


def adapt(module: nn.Module, source: DrafterSource, target: Gemma4Target) -> None:
    """Quantize a loaded network as requested, and compute it in a precision like the target's."""
    if source.bits:
        checkpoint.quantize(module, source.bits)
    if target.is_float32:
        convert_to_float32(module)
    elif not target.has_float16:
        convert_float16(module)  # beside another dtype everything would be computed in float32


Step = Callable[[mx.array, mx.array | None, int], Distribution]
"""Draws one token from the token before it, the tokens that the reply contains, and its position."""


def draft_one_by_one(step: Step, frontier: Frontier, position: int, length: int) -> Distribution:
    """Draft `length` tokens from `position` on, each drawn with the ones before it as history.

    The device starts on each token while the host prepares the next; nothing is waited for.
    """
    token, seen = frontier.token, frontier.seen
    drafts: list[Distribution] = []
    for index in range(length):
        drafts.append(step(token, seen, position + index))
        token = drafts[-1].tokens
        mx.async_eval(token)
        seen = history_after(seen, token)
    tokens = mx.concatenate([draft.tokens for draft in drafts])
    probs = [draft.probs for draft in drafts if draft.probs is not None]
    return Distribution(tokens, mx.concatenate(probs) if probs else None)
