"""What of a plan fits its time: fewer prompts and shorter replies where the model is slow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from app.bench.plan import BenchPlan, Case
from app.bench.results import AUTO, OFF

MARGIN = 1.5
"""Rounds with drafts may take longer than the plain ones that the pace is known from."""
FEWEST_TOKENS = 4
"""The shortest replies that still contain a round with drafts."""
TEMPLATE_CHARACTERS = 60
"""Roughly what the chat template adds to a short message."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The speed of a model, from one short reply."""

    prompt_characters: int
    first_token_s: float
    token_s: float
    """Of plain decoding."""


def fitted(plan: BenchPlan, pace: Pace, left_s: float) -> BenchPlan:
    """The largest part of the plan that takes no longer than `left_s`; the smallest one if none does."""
    part = plan
    for part in _parts(plan):
        if _duration_s(part, pace) <= left_s:
            break
    return part


def _parts(plan: BenchPlan) -> Iterator[BenchPlan]:
    """From all to the least: first shorter replies, then fewer prompts, then fewer settings."""
    lengths = [plan.max_tokens]
    while lengths[-1] // 2 >= FEWEST_TOKENS:
        lengths.append(lengths[-1] // 2)
    for count in range(len(plan.cases), 0, -1):
        for max_tokens in lengths[:2]:
            yield replace(plan, cases=plan.cases[:count], max_tokens=max_tokens)
    drafting = [setting for setting in plan.settings if setting != OFF]
    settings = plan.settings
    if OFF in settings and drafting:
        settings = (OFF, AUTO if AUTO in drafting else drafting[0])
    for max_tokens in lengths:
        yield replace(plan, cases=plan.cases[:1], settings=settings, max_tokens=max_tokens)


def _duration_s(plan: BenchPlan, pace: Pace) -> float:
    # The prompt is read once; every reply after it reads two tokens again.
    replies_s = 2 * len(plan.settings) * (plan.max_tokens + 2) * pace.token_s * MARGIN
    return sum(_first_token_s(case, pace) + replies_s for case in plan.cases)


def _first_token_s(case: Case, pace: Pace) -> float:
    characters = sum(len(message.text) for message in case.prompt.messages)
    longer = (characters + TEMPLATE_CHARACTERS) / (pace.prompt_characters + TEMPLATE_CHARACTERS)
    return pace.first_token_s * longer
