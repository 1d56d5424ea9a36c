"""What is asked in which order.

A block is one prompt at every setting, there and back: off 2 4 4 2 off. The order begins with another setting in
every block, so that none always stands at the ends. A pass is one block of every prompt.
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
"""Of the prompt, or less where the context is small: a quarter and a half of it are the most."""


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt, what comes before it, and how its reply is drawn."""

    prompt: BenchPrompt
    context: Context
    mode: Mode

    @property
    def group(self) -> tuple[Mode, Context, str]:
        """Cases whose blocks make one row together."""
        return self.mode, self.context, self.prompt.kind


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """One run."""

    cases: tuple[Case, ...]
    """In the order of a pass."""
    settings: tuple[str, ...]
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    """Of sampled replies."""
    system: str | None = None
    is_thinking: bool = False
    max_tokens: int = 128
    limit_s: float = 600.0
    cool_down_s: float = 0.0
    passes: int = MOST_PASSES


def make_cases(
    prompts: Sequence[BenchPrompt], contexts: Sequence[Context], modes: Sequence[Mode]
) -> tuple[Case, ...]:
    """The cases of a pass: the first prompt of every kind before the second of any.

    What a longer context costs does not depend on the question behind it: only the first prompt of every kind
    gets one.
    """
    by_kind: dict[str, list[BenchPrompt]] = defaultdict(list)
    for prompt in prompts:
        by_kind[prompt.kind].append(prompt)
    cases = []
    for number in range(max(map(len, by_kind.values()), default=0)):
        for context in contexts:
            if number and context != "short" and "short" in contexts:
                continue
            row = [each[number] for each in by_kind.values() if number < len(each)]
            cases += [Case(prompt, context, mode) for mode in modes for prompt in row]
    return tuple(cases)


def block_order(settings: Sequence[str], block: int) -> tuple[str, ...]:
    """The settings of one block in their order: there and back, from another one in every block."""
    shift = block % len(settings)
    there = (*settings[shift:], *settings[:shift])
    return (*there, *reversed(there))


def context_room(context: Context, context_tokens: int) -> int:
    """Prompt tokens to aim at; 0 is the prompt alone."""
    if context == "short":
        return 0
    wanted, share = (MEDIUM_TOKENS, 4) if context == "medium" else (LONG_TOKENS, 2)
    return min(wanted, context_tokens // share)


def to_setting(name: str) -> DraftSetting:
    """`off`, `1` to `16` or `auto` as the engine takes it. Raises ValueError."""
    if name == AUTO:
        return "auto"
    if name == OFF:
        return 0
    if not name.isdecimal() or not 1 <= int(name) <= MAX_DRAFT_LENGTH:
        raise ValueError(name)
    return int(name)


def to_name(setting: DraftSetting) -> str:
    """The other way round."""
    return OFF if setting == 0 else str(setting)
