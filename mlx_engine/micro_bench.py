"""Half a minute of measurements on a loaded pair: the kernels by number of rows, a drafter's step, prefill chunks.

They tell what the defaults of a device should be, so that a person who has one can send them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import mlx.core as mx

from mlx_engine.decode import Control, DecodeOptions, Session, prefill
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import Gemma4Target
from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import LOOKUP, MAX_DRAFT_LENGTH
from mlx_engine.protocol.micro_figures import MicroFigures
from mlx_engine.speculation.drafter import Drafter, Frontier
from mlx_engine.speculation.sampling import Sampler

MOST_ROWS = 1 + MAX_DRAFT_LENGTH
ALL_ROWS = tuple(range(1, 1 + MOST_ROWS))
HEAD_SIZES = {256: "sliding_attention", 512: "full_attention"}
"""Those of Gemma 4, and the layers that have them."""
CHUNKS = (256, 512, 1024, 2048)
DRAFT_LENGTH = 4
"""Tokens that are drafted together to measure a step: the device begins each while the host prepares the next."""
GROUP_SIZE, BITS = 64, 4
PROMPT_TOKENS = 256
SEED = 21

Case = TypeVar("Case", int, str)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    limit_s: float = 30.0
    """Together; every part makes at least one round."""
    rounds: int = 5
    """The most rounds of a part."""
    product_shape: tuple[int, int] = (16384, 4096)
    """Outputs and inputs: as large as the products of a 12B."""
    matrices: int = 4
    """Different ones in turn, so that none of them is in the processor's cache."""
    keys: int = 2048
    prompt_tokens: int = PROMPT_TOKENS
    chunks: tuple[int, ...] = CHUNKS


ON_PROCESSOR = Extent(product_shape=(2048, 1024), matrices=1, keys=256)
"""Where a product of many rows takes as many times as long as of one."""
SHARES = {"product": 0.15, "attention": 0.1, "verify": 0.2, "drafters": 0.1, "prefill": 0.35}
"""Of the time. There are as many attentions as head sizes."""


def extent_of_device() -> Extent:
    return Extent() if mx.metal.is_available() else ON_PROCESSOR


class MicroBench:
    """The measurements on one pair. Keeps nothing of the conversation in the engine's caches."""

    def __init__(
        self,
        target: Gemma4Target,
        drafters: Sequence[Drafter],
        control: Control,
        clock: Callable[[], float],
        room_bytes: int | None,
        extent: Extent | None = None,
    ) -> None:
        """room_bytes: the most that MLX may allocate; None: unknown."""
        self._target = target
        self._drafters = [drafter for drafter in drafters if drafter.name != LOOKUP]
        self._control, self._clock, self._room_bytes = control, clock, room_bytes
        self._extent = extent or extent_of_device()
        self._dtype = mx.bfloat16 if mx.metal.is_available() else mx.float32
        self._peak_bytes = 0
        self._draw = random.Random(SEED)

    def run(self) -> MicroFigures:
        """Measure. Raises RequestError if the control cancels it."""
        prefill_s, prefill_peak_bytes = self._prefill()
        product_s = self._product()
        attention_s = {size: self._attention(size, kind) for size, kind in HEAD_SIZES.items()}
        verify_s, drafter_step_s = self._rounds()
        self._peak_bytes = max(self._peak_bytes, mx.get_peak_memory())
        return MicroFigures(
            product_shape=self._extent.product_shape,
            product_s=product_s,
            attention_keys=self._extent.keys,
            attention_s=attention_s,
            verify_s=verify_s,
            drafter_step_s=drafter_step_s,
            prefill_s=prefill_s,
            prefill_peak_bytes=prefill_peak_bytes,
            peak_memory_bytes=self._peak_bytes,
        )

    def _product(self) -> dict[int, float]:
        outputs, inputs = self._extent.product_shape
        matrices = [
            mx.quantize(mx.random.normal((outputs, inputs), self._dtype, key=_key(index)), GROUP_SIZE, BITS)
            for index in range(self._extent.matrices)
        ]
        mx.eval(matrices)

        def multiply(rows: int) -> None:
            x = mx.ones((rows, inputs), self._dtype)
            mx.eval([
                mx.quantized_matmul(x, *matrix, transpose=True, group_size=GROUP_SIZE, bits=BITS)
                for matrix in matrices
            ])  # fmt: skip

        times_s = self._shortest(multiply, ALL_ROWS, "product")
        return {rows: elapsed_s / len(matrices) for rows, elapsed_s in times_s.items()}

    def _attention(self, head_size: int, kind: str) -> dict[int, float]:
        facts, copies = self._target.facts, self._extent.matrices
        key_heads, _ = facts.kv_geometry.get(kind, (1, head_size))
        keys = [
            mx.random.normal((1, key_heads, self._extent.keys, head_size), self._dtype, key=_key(index))
            for index in range(copies)
        ]
        mx.eval(keys)

        def attend(rows: int) -> None:
            queries = mx.ones((1, facts.heads, rows, head_size), self._dtype)
            mask = "causal" if rows > 1 else None
            mx.eval([
                mx.fast.scaled_dot_product_attention(queries, each, each, scale=1.0, mask=mask) for each in keys
            ])  # fmt: skip

        return {
            rows: elapsed_s / copies for rows, elapsed_s in self._shortest(attend, ALL_ROWS, "attention").items()
        }

    def _rounds(self) -> tuple[dict[int, float], dict[str, float]]:
        """Passes of the target by rows, and the drafters' steps, behind a prompt."""
        sampler = Sampler(temperature=0)
        prefix = PrefixCache(self._target)
        prefix.resume(self._ids(min(self._extent.prompt_tokens, self._target.facts.context_tokens - MOST_ROWS)))
        session = Session(self._target, self._drafters, prefix)
        options = DecodeOptions(sampler, frozenset(), 1, self._control)
        frontier = prefill(session, options, lambda done_tokens: None)
        if frontier is None:
            raise _stopped()
        return self._verify(prefix.cache), self._steps(prefix, frontier, sampler)

    def _verify(self, cache: TargetCache) -> dict[int, float]:
        tokens = self._tokens(ALL_ROWS)

        def verify(rows: int) -> None:
            hidden = self._target.forward(tokens[rows], cache)
            mx.eval(mx.argmax(self._target.logits(hidden), axis=-1))
            cache.rollback(rows)

        return self._shortest(verify, ALL_ROWS, "verify")

    def _steps(self, prefix: PrefixCache, frontier: Frontier, sampler: Sampler) -> dict[str, float]:
        lengths = {drafter.name: drafter.offer(prefix.tokens, DRAFT_LENGTH).tokens for drafter in self._drafters}
        drafters = {drafter.name: drafter for drafter in self._drafters if lengths[drafter.name]}

        def draft(name: str) -> None:
            length = lengths[name]
            mx.eval(drafters[name].propose(prefix.tokens, frontier, prefix.cache, length, sampler).tokens)
            drafters[name].rollback(length)

        times_s = self._shortest(draft, tuple(drafters), "drafters")
        return {name: elapsed_s / lengths[name] for name, elapsed_s in times_s.items()}

    def _prefill(self) -> tuple[dict[int, float], dict[int, int]]:
        """Seconds and peak memory by chunk."""
        chunks = [chunk for chunk in self._extent.chunks if chunk < self._target.facts.context_tokens]
        tokens, peaks_bytes = self._tokens(chunks), dict[int, int]()

        def read(chunk: int) -> None:
            cache = self._target.new_cache()
            mx.reset_peak_memory()
            mx.eval(self._target.read(tokens[chunk], cache), cache.arrays())
            peaks_bytes[chunk] = mx.get_peak_memory()
            self._peak_bytes = max(self._peak_bytes, peaks_bytes[chunk])

        times_s = self._shortest(read, self._affordable(read, chunks, peaks_bytes), "prefill", is_warm=True)
        return times_s, {chunk: peaks_bytes[chunk] for chunk in times_s}

    def _affordable(
        self, read: Callable[[int], None], chunks: Sequence[int], peaks_bytes: dict[int, int]
    ) -> list[int]:
        """Try longer and longer chunks, up to those that would take too much time or memory."""
        limit_s, idle_bytes = SHARES["prefill"] * self._extent.limit_s / 2, mx.get_active_memory()
        started_at_s, latest_s, affordable = self._clock(), 0.0, list[int]()
        for chunk in chunks:
            self._check()
            more_bytes = 2 * (max(peaks_bytes.values(), default=idle_bytes) - idle_bytes)
            has_room = self._room_bytes is None or idle_bytes + more_bytes <= self._room_bytes
            before_s = self._clock()
            if not has_room or before_s - started_at_s + 2 * latest_s > limit_s:
                break
            read(chunk)
            latest_s = self._clock() - before_s
            affordable.append(chunk)
        return affordable

    def _shortest(
        self, run: Callable[[Case], None], cases: Sequence[Case], part: str, is_warm: bool = False
    ) -> dict[Case, float]:
        """The shortest time of each case, in rounds over all of them. is_warm: each has been run before."""
        times_s: dict[Case, float] = {}
        end_s = self._clock() + SHARES[part] * self._extent.limit_s
        for round in range(0 if not is_warm else 1, 1 + self._extent.rounds):
            if round > 1 and self._clock() >= end_s:
                break
            for case in cases:
                self._check()
                before_s = self._clock()
                run(case)
                elapsed_s = self._clock() - before_s
                if round:
                    times_s[case] = min(times_s.get(case, elapsed_s), elapsed_s)
        mx.clear_cache()
        return times_s

    def _tokens(self, counts: Sequence[int]) -> dict[int, mx.array]:
        return {count: mx.array([self._ids(count)], mx.int32) for count in counts}

    def _ids(self, count: int) -> list[int]:
        """Different ones, as in a text: experts are chosen by them."""
        return [self._draw.randrange(self._target.facts.vocab_size) for _ in range(count)]

    def _check(self) -> None:
        if self._control.is_cancelled:
            raise _stopped()


def _stopped() -> RequestError:
    return RequestError("The measurements were stopped.")


def _key(index: int) -> mx.array:
    return mx.random.key(SEED + index)
