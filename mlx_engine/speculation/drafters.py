"""Drafters propose the tokens that the target then verifies: three kinds behind one protocol.

AssistantDrafter  the MTP assistant that belongs to a target, over the target's own keys and values
ModelDrafter      any smaller Gemma 4 of the same tokenizer, with a cache of its own
LookupDrafter     what followed the last time that the text went like this: no weights at all
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from mlx_engine.network.assistant import Assistant
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.prefix import PREFILL_CHUNK_TOKENS, PrefixCache
from mlx_engine.network.target import Target, TargetFacts
from mlx_engine.protocol.errors import PairMismatchError
from mlx_engine.speculation.sampling import NOTHING_DRAFTED, Distribution, Sampler, Use, history_after

DRAFT_POSITION_OFFSET = 0
"""Position of a round's draft steps, relative to the number of tokens in the target's cache.

0 is the unread token's own position, as in transformers and llama.cpp; -1 is the last read token's, as in
vLLM and ollama. Nobody has published a comparison on real weights.
"""
LOOKUP_RUNS = (4, 3, 2)
"""Lengths of the runs that prompt lookup goes by. Longer runs are right more often, and are tried first; a
single token recurs too often to tell anything."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """Where a reply stands: one token is committed that the target has not read yet."""

    token: mx.array
    """(1,) int32: that token."""
    hidden: mx.array
    """(1, 1, hidden): the target's last hidden state, of the token before it."""
    seen: mx.array | None
    """(1, vocab) bool: tokens that the reply holds; None where no setting asks for it."""


class Drafter(Protocol):
    """Proposes tokens. Must not change the target's cache; undoes in its own what `rollback` says."""

    def prefill(self, prompt: Sequence[int], marks: Collection[int]) -> Iterator[int]:
        """Read what it wants to have read of the prompt, as PrefixCache.prefill does."""
        ...

    def reach(self, committed: Sequence[int], length: int) -> int:
        """How many tokens it can propose to follow these, up to `length`."""
        ...

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """`length` tokens to follow the frontier, each with what it was drawn from; nothing is waited for.

        committed: the conversation up to the frontier's token, which is the last; cache: the target's, one
        token behind; length: 1 to what `reach` allows.
        """
        ...

    def rollback(self, fallen: int) -> None:
        """The last `fallen` tokens of the proposal are no part of the reply."""
        ...


class AssistantDrafter:
    """Each step reads the target's embedding of a token, a hidden state and the shared K/V; it keeps nothing."""

    def __init__(self, assistant: Assistant, target: Target) -> None:
        self._assistant = assistant
        self._target = target

    def prefill(self, prompt: Sequence[int], marks: Collection[int]) -> Iterator[int]:
        """See Drafter. The target's caches are all it needs."""
        return iter(())

    def reach(self, committed: Sequence[int], length: int) -> int:
        """See Drafter."""
        return length

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. The position stays that of the frontier for the whole round."""
        shared_kv = cache.shared_kv()
        position = cache.frontier + DRAFT_POSITION_OFFSET
        hidden = frontier.hidden

        def step(token: mx.array, seen: mx.array | None, at: int) -> Distribution:
            nonlocal hidden
            state, hidden = self._assistant(self._target.embed(token[None]), hidden, shared_kv, position)
            if sampler.is_argmax:
                return Distribution(self._assistant.argmax(state)[0].astype(mx.int32), None)
            return sampler.draw(self._assistant.logits(state)[0], at, Use.DRAFT, seen)

        return _chain(step, frontier, len(committed), length)

    def rollback(self, fallen: int) -> None:
        """See Drafter."""


class ModelDrafter:
    """A smaller model of the same tokenizer that reads the conversation for itself."""

    def __init__(self, model: Target) -> None:
        self._model = model
        self._prefix = PrefixCache(model)

    def prefill(self, prompt: Sequence[int], marks: Collection[int]) -> Iterator[int]:
        """See Drafter."""
        self._prefix.resume(prompt)
        return self._prefix.prefill(marks)

    def reach(self, committed: Sequence[int], length: int) -> int:
        """See Drafter."""
        return length

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. Reads first what was committed since it last drafted."""
        prefix = self._prefix
        prefix.tokens.extend(committed[len(prefix.tokens) :])
        while prefix.cache.frontier < len(committed):
            hidden = prefix.read(committed[prefix.cache.frontier :][:PREFILL_CHUNK_TOKENS])
            mx.async_eval(hidden)

        def step(token: mx.array, seen: mx.array | None, at: int) -> Distribution:
            is_first = at == len(committed)
            state = hidden if is_first else self._model.forward(token[None], prefix.cache)
            return sampler.draw(self._model.logits(state), at, Use.DRAFT, seen)

        return _chain(step, frontier, len(committed), length)

    def rollback(self, fallen: int) -> None:
        """See Drafter. The last token of a proposal was drawn but never read."""
        self._prefix.cache.rollback(max(0, fallen - 1))


class GuardedDrafter:
    """A drafter that may fail: it then proposes nothing any more, and replies go on without it."""

    def __init__(self, drafter: Drafter, on_failure: Callable[[Exception], None]) -> None:
        """on_failure: called once."""
        self._drafter: Drafter | None = drafter
        self._on_failure = on_failure

    def prefill(self, prompt: Sequence[int], marks: Collection[int]) -> Iterator[int]:
        """See Drafter."""
        with self._guarding():
            if self._drafter:
                yield from self._drafter.prefill(prompt, marks)

    def reach(self, committed: Sequence[int], length: int) -> int:
        """See Drafter. 0 once it has failed."""
        with self._guarding():
            return self._drafter.reach(committed, length) if self._drafter else 0
        return 0  # it has just failed

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. Nothing if it fails."""
        with self._guarding():
            if self._drafter:
                return self._drafter.propose(committed, frontier, cache, length, sampler)
        return NOTHING_DRAFTED

    def rollback(self, fallen: int) -> None:
        """See Drafter."""
        with self._guarding():
            if self._drafter:
                self._drafter.rollback(fallen)

    @contextmanager
    def _guarding(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a network of a stranger's numbers comes to
            self._drafter = None
            self._on_failure(error)


class LookupDrafter:
    """Prompt lookup: proposes what followed the latest earlier occurrence of the last few tokens."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._follows: dict[tuple[int, ...], int] = {}
        """Run of tokens -> position of what followed its latest occurrence."""

    def prefill(self, prompt: Sequence[int], marks: Collection[int]) -> Iterator[int]:
        """See Drafter. Forgets the conversation before, if this one does not go on with it."""
        if list(prompt[: len(self._tokens)]) != self._tokens:
            self._tokens, self._follows = [], {}
        return iter(())

    def reach(self, committed: Sequence[int], length: int) -> int:
        """See Drafter."""
        return len(self._continuation(committed, length))

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. Certain of every token, whatever the sampler: there are no scores to draw from."""
        return Distribution(mx.array(self._continuation(committed, length), dtype=mx.int32), None)

    def rollback(self, fallen: int) -> None:
        """See Drafter. Only what was committed is ever taken note of."""

    def _continuation(self, committed: Sequence[int], length: int) -> list[int]:
        self._take_note(committed)
        for run in LOOKUP_RUNS:
            begin = self._follows.get(tuple(committed[-run:]))
            if begin is not None:
                return self._going_on(committed, begin, length)
        return []

    @staticmethod
    def _going_on(committed: Sequence[int], begin: int, length: int) -> list[int]:
        """`length` tokens from `begin` on; past the end they repeat, as the text is just about to."""
        period = len(committed) - begin
        return [committed[begin + index % period] for index in range(length)]

    def _take_note(self, committed: Sequence[int]) -> None:
        """Learn what follows each run before the last token; the newest run is not its own precedent."""
        for position in range(max(1, len(self._tokens)), len(committed)):
            for run in LOOKUP_RUNS:
                if run <= position:
                    self._follows[tuple(committed[position - run : position])] = position
        self._tokens.extend(committed[len(self._tokens) :])


Step = Callable[[mx.array, mx.array | None, int], Distribution]
"""Draws the token after the one given, by the history given, at the position given."""


def _chain(step: Step, frontier: Frontier, position: int, length: int) -> Distribution:
    """`length` tokens from `position` on, each drawn with the ones before it as history.

    The device begins with each while the host puts together what follows it; nothing is waited for.
    """
    token, seen = frontier.token, frontier.seen
    drawn: list[Distribution] = []
    for at in range(position, position + length):
        drawn.append(step(token, seen, at))
        token = drawn[-1].tokens
        mx.async_eval(token)
        seen = history_after(seen, token)
    probs = [each.probs for each in drawn if each.probs is not None]
    tokens = mx.concatenate([each.tokens for each in drawn])
    return Distribution(tokens, mx.concatenate(probs) if probs else None)


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
