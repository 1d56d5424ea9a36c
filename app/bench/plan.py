"""The order of a run: passes of blocks.

A block is one prompt at every setting, there and back: off 2 4 4 2 off. Each block starts with another setting, so
that none is always at the ends. A pass is one block of every prompt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.bench.prompts import BenchPrompt
from app.bench.results import AUTO, OFF, Context, Mode
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, DraftSetting, SamplingOptions

MOST_PASSES = 50
MEDIUM_TOKENS, LONG_TOKENS = 2048, 8192
"""Prompt lengths of the medium and long contexts; at most a quarter and half of a smaller model context."""


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt, how much text comes before it, and whether its reply is greedy or sampled."""

    prompt: BenchPrompt
    context: Context
    mode: Mode

    @property
    def group(self) -> tuple[Mode, Context, str]:
        """Cases with the same group share a row of the table."""
        return self.mode, self.context, self.prompt.kind


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What one run measures, and its limits."""

    cases: tuple[Case, ...]
    """One pass, in order."""
    settings: tuple[str, ...]
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    """For sampled replies."""
    system: str | None = None
    is_thinking: bool = False
    max_tokens: int = 128
    limit_s: float = 600.0
    cool_down_s: float = 0.0
    passes: int = MOST_PASSES
    is_fitted: bool = False
    """Measure the part that fits the time, and at least one block."""


def make_cases(
    prompts: Sequence[BenchPrompt], contexts: Sequence[Context], modes: Sequence[Mode]
) -> tuple[Case, ...]:
    """The cases of a pass: the first prompt of every kind, then the second, and so on.

    Only the first prompt of each kind gets the longer contexts: their cost does not depend on the question.
    """
    by_kind: dict[str, list[BenchPrompt]] = defaultdict(list)
    for prompt in prompts:
        by_kind[prompt.kind].append(prompt)
    cases = []
    for number in range(max(map(len, by_kind.values()), default=0)):
        for context in contexts:
            if number and context != "short" and "short" in contexts:
                continue
            row = [kind_prompts[number] for kind_prompts in by_kind.values() if number < len(kind_prompts)]
            cases += [Case(prompt, context, mode) for mode in modes for prompt in row]
    return tuple(cases)


def block_order(settings: Sequence[str], block: int) -> tuple[str, ...]:
    """The settings of one block in order: there and back, starting with another one in each block."""
    shift = block % len(settings)
    there = (*settings[shift:], *settings[:shift])
    return (*there, *reversed(there))


def target_prompt_tokens(context: Context, context_tokens: int | None) -> int:
    """The prompt length to aim at, in tokens; 0 for the prompt alone. context_tokens: None where a server does not
    say how long its context is."""
    if context == "short":
        return 0
    tokens, divisor = (MEDIUM_TOKENS, 4) if context == "medium" else (LONG_TOKENS, 2)
    return tokens if context_tokens is None else min(tokens, context_tokens // divisor)


def to_setting(name: str) -> DraftSetting:
    """`off`, `1` to `16` or `auto` as the engine's setting. Raises ValueError for anything else."""
    if name == AUTO:
        return "auto"
    if name == OFF:
        return 0
    if not name.isdecimal() or not 1 <= int(name) <= MAX_DRAFT_LENGTH:
        raise ValueError(name)
    return int(name)


def to_name(setting: DraftSetting) -> str:
    """The inverse of `to_setting`."""
    return OFF if setting == 0 else str(setting)
