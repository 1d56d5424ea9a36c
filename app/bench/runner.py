"""The run: a warm-up, then block after block until the figures are precise enough or time is up.

However the run ends, what has been measured is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from app.bench import fitting
from app.bench.asking import BenchAnswer, BlockingEngine, Clock
from app.bench.notes import log_messages
from app.bench.plan import BenchPlan, Case, block_order, target_prompt_tokens, to_setting
from app.bench.results import AS_IS, OFF, Context, Ending, FirstToken, MeasuredReply
from app.bench.rows import Key, block_ratios
from app.bench.statistics import estimate
from app.system.interrupts import Stop
from mlx_engine.protocol.errors import RequestError, SlipstreamError
from mlx_engine.protocol.events import DraftSetting, Message, Ready, SamplingOptions

WARM_UP = (Message("user", "Count from 1 up to 10"),)
"""Differs from all measured prompts, which have to be read with an empty prompt cache."""
AUTO_LENGTH: DraftSetting = "auto"
"""Asked of a server that cannot be told how to draft, and does not hear it."""
WARM_UP_TOKENS = 16
TRIAL_CHARACTERS = 2000
"""Length of log text used to find out how many characters a token has."""
TRIAL_TOKENS = 4
"""Of the reply that tells how fast the model is."""
WARM_UP_SHARE = 0.1
"""Of the time: other settings are warmed up if that takes no longer."""
NAP_S = 0.1
"""How often a cool-down checks for a stop."""
FEWEST_TOKENS = 2
"""A reply of one token says nothing about decoding speed: it has only a first round."""


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """The position in the run, and the time it has taken."""

    doing: str
    passes_done: int
    blocks_done: int
    """In this pass."""
    blocks: int
    elapsed_s: float
    left_s: float
    """An upper limit."""


@dataclass(slots=True)
class Measured:
    """What has been measured so far."""

    replies: list[MeasuredReply] = field(default_factory=list)
    first_tokens: list[FirstToken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plan: BenchPlan | None = None
    """The part of the plan that is measured, where it was fitted to the time."""
    ended: Ending = "running"


OnProgress = Callable[[BenchProgress, Measured], None]
"""Called before every reply."""
OnBlock = Callable[[Measured], None]
"""Called after every block: a good moment to save the results."""


class _RunEnded(Exception):
    """Ends the run from wherever it is."""

    def __init__(self, ended: Ending) -> None:
        super().__init__(ended)
        self.ended = ended


class Runner:
    """One run on one loaded pair."""

    def __init__(self, engine: BlockingEngine, ready: Ready, plan: BenchPlan, clock: Clock, stop: Stop) -> None:
        self._engine, self._ready, self._plan, self._clock, self._stop = engine, ready, plan, clock, stop
        self.measured = Measured()
        self._cases = list(plan.cases)
        self._characters: dict[Context, int] = {}
        self._block = 0
        self._started_at_s = 0.0
        self._passes_done = self._blocks_done = self._blocks_finished = 0
        self._on_progress: OnProgress = lambda progress, measured: None

    def run(self, on_progress: OnProgress, on_block: OnBlock) -> Measured:
        """Measure. If the engine dies, the run ends as failed, with the reason in the notes."""
        self._on_progress = on_progress
        self._started_at_s = self._clock.now_s()
        try:
            self._warm_up()
            for _ in range(self._plan.passes):
                self._pass(on_block)
            self.measured.ended = "passes"
        except _RunEnded as end:
            self.measured.ended = end.ended
        except SlipstreamError as error:
            self.measured.notes.append(str(error))
            self.measured.ended = "failed"
        on_block(self.measured)
        return self.measured

    def _pass(self, on_block: OnBlock) -> None:
        ratios = block_ratios(self.measured.replies)
        cases = [case for case in self._cases if not self._is_tight(case, ratios)]
        if not cases:
            raise _RunEnded("tight")
        self._blocks_done = 0
        for case in cases:
            try:
                self._measure(case, len(cases))
            except RequestError as error:
                self._leave_out(case, error)
            self._blocks_done += 1
            self._blocks_finished += 1
            on_block(self.measured)
            self._cool_down(len(cases))
        self._passes_done += 1

    def _leave_out(self, case: Case, error: RequestError) -> None:
        self.measured.notes.append(f"{case.prompt.name} ({case.context}) was left out: {error}")
        self._cases.remove(case)
        if not self._cases:
            raise _RunEnded("failed") from error

    def _measure(self, case: Case, blocks: int) -> None:
        """One block: read the prompt with an empty prompt cache, then answer it with every setting, twice."""
        number, self._block = self._block, self._block + 1
        messages = self._messages(case)
        sampling = self._plan.sampling
        if case.mode == "greedy":
            sampling = msgspec.structs.replace(sampling, temperature=0.0)
        # One seed for the whole block: with coupled sampling all its replies then have the same tokens.
        sampling = msgspec.structs.replace(sampling, seed=(sampling.seed or 0) + number)
        is_compared = case.mode == "greedy" or sampling.rule == "coupled"
        label = f"{case.prompt.name}, {case.context}, {case.mode}"

        def ask(setting: str, max_tokens: int) -> BenchAnswer:
            self._say(f"{label}: draft {setting}", blocks)
            return self._ask(messages, sampling, setting, max_tokens)

        self.measured.first_tokens.append(_first_token(case, number, ask(OFF, 1)))
        replies: list[tuple[MeasuredReply, tuple[int, ...]]] = []
        measured, before = self.measured.replies, len(self.measured.replies)
        try:
            for place, setting in enumerate(block_order(self._plan.settings, number)):
                answer = ask(setting, self._plan.max_tokens)
                if answer.timed_tokens >= FEWEST_TOKENS:
                    replies.append((_reply(case, number, place, setting, answer), answer.token_ids))
                    measured.append(replies[-1][0])
        finally:
            # The reply that all others are compared with may have come after them.
            if is_compared:
                measured[before:] = _compared(replies)
        if not replies:
            raise RequestError("the model ends its reply at once.")

    def _ask(
        self, messages: tuple[Message, ...], sampling: SamplingOptions, setting: str, max_tokens: int
    ) -> BenchAnswer:
        self._check_end()
        draft_length = AUTO_LENGTH if setting == AS_IS else to_setting(setting)
        answer = self._engine.ask(messages, sampling, draft_length, max_tokens, self._plan.is_thinking)
        if answer.finished.reason == "cancelled":
            raise _RunEnded("interrupted")
        return answer

    def _check_end(self) -> None:
        if self._stop.is_requested:
            raise _RunEnded("interrupted")
        is_owed = self._plan.is_fitted and not self._blocks_finished
        if self._elapsed_s() >= self._plan.limit_s and not is_owed:
            raise _RunEnded("time")

    def _warm_up(self) -> None:
        """Make a short reply at every setting, which does not count, and measure how long a token is."""
        settings = self._fit() if self._plan.is_fitted else self._plan.settings
        for setting in settings:
            self._say(f"warm-up: draft {setting}", len(self._cases))
            self._ask(WARM_UP, self._plan.sampling, setting, min(WARM_UP_TOKENS, self._plan.max_tokens))
        contexts = {case.context for case in self._cases} - {"short"}
        if contexts:
            self._say("warm-up: measuring token length", len(self._cases))
            per_token = self._characters_per_token()
            for context in contexts:
                self._characters[context] = round(
                    target_prompt_tokens(context, self._ready.context_tokens) * per_token
                )

    def _fit(self) -> tuple[str, ...]:
        """Reduce the plan to what fits its time; returns the settings to warm up."""
        self._say("warm-up: how fast is this model?", len(self._cases))
        answer = self._ask(WARM_UP, self._plan.sampling, OFF, TRIAL_TOKENS)
        trial = answer.facts.stats
        token_s = max(1e-9, trial.decode_s / max(1, answer.timed_tokens))
        pace = fitting.Pace(sum(len(message.text) for message in WARM_UP), trial.ttft_s or 0.0, token_s)
        left_s = self._plan.limit_s - self._elapsed_s()
        warm_up_s = len(self._plan.settings) * WARM_UP_TOKENS * token_s
        can_warm_up = warm_up_s <= WARM_UP_SHARE * left_s
        before, self._plan = self._plan, fitting.fitted(self._plan, pace, left_s - warm_up_s * can_warm_up)
        self._cases = list(self._plan.cases)
        self.measured.plan = self._plan
        if self._plan != before:
            self.measured.notes.append(
                f"This model makes {1 / token_s:.2g} tokens/s here. To end in time, {len(self._cases)} of "
                f"{len(before.cases)} prompts are measured, with replies of at most {self._plan.max_tokens} "
                f"tokens, at {', '.join(self._plan.settings)}."
            )
        return self._plan.settings if can_warm_up else ()

    def _characters_per_token(self) -> float:
        counts = [
            self._ask((*log_messages(length), *WARM_UP), self._plan.sampling, OFF, 1).facts.prompt_tokens
            for length in (TRIAL_CHARACTERS, TRIAL_CHARACTERS // 2)
        ]
        longer, shorter = counts
        if longer is None or shorter is None:
            raise SlipstreamError("The server does not count the tokens of prompts. Use --contexts short.")
        return TRIAL_CHARACTERS / 2 / max(1, longer - shorter)

    def _messages(self, case: Case) -> tuple[Message, ...]:
        system = (Message("system", self._plan.system),) if self._plan.system else ()
        return (*system, *log_messages(self._characters.get(case.context, 0)), *case.prompt.messages)

    def _is_tight(self, case: Case, ratios: Mapping[Key, list[float]]) -> bool:
        """Whether all speedups of the rows that a case belongs to are precise enough."""
        drafting = [setting for setting in self._plan.settings if setting != OFF]
        mode, context, kind = case.group
        estimates = [estimate(ratios.get((mode, context, kind, setting), [])) for setting in drafting]
        return all(speedup is not None and speedup.is_tight for speedup in estimates)

    def _cool_down(self, blocks: int) -> None:
        if not self._plan.cool_down_s:
            return
        self._say("cooling down", blocks)
        until_s = self._clock.now_s() + self._plan.cool_down_s
        while (left_s := until_s - self._clock.now_s()) > 0:
            self._check_end()
            self._clock.sleep_s(min(NAP_S, left_s))

    def _say(self, doing: str, blocks: int) -> None:
        elapsed_s = self._elapsed_s()
        left_s = max(0.0, self._plan.limit_s - elapsed_s)
        if self._block:
            blocks_left = (self._plan.passes - self._passes_done) * blocks - self._blocks_done
            left_s = min(left_s, elapsed_s / self._block * blocks_left)
        progress = BenchProgress(doing, self._passes_done, self._blocks_done, blocks, elapsed_s, left_s)
        self._on_progress(progress, self.measured)

    def _elapsed_s(self) -> float:
        return self._clock.now_s() - self._started_at_s


def first_difference(tokens: Sequence[int], reference: Sequence[int]) -> int | None:
    """The first position at which two replies differ; None if they are equal."""
    for position, (token, other) in enumerate(zip(tokens, reference)):
        if token != other:
            return position
    return None if len(tokens) == len(reference) else min(len(tokens), len(reference))


def _first_token(case: Case, block: int, answer: BenchAnswer) -> FirstToken:
    return FirstToken(
        prompt=case.prompt.name,
        kind=case.prompt.kind,
        context=case.context,
        mode=case.mode,
        block=block,
        prompt_tokens=answer.facts.prompt_tokens,
        cached_tokens=answer.facts.cached_tokens,
        ttft_s=answer.facts.stats.ttft_s or 0.0,
    )


def _reply(case: Case, block: int, place: int, setting: str, answer: BenchAnswer) -> MeasuredReply:
    stats = answer.facts.stats
    return MeasuredReply(
        prompt=case.prompt.name,
        kind=case.prompt.kind,
        context=case.context,
        mode=case.mode,
        block=block,
        place=place,
        setting=setting,
        tokens=answer.timed_tokens,
        target_passes=stats.rounds,
        drafted=stats.drafted,
        accepted=stats.accepted,
        accepted_by_drafter={name: counts.accepted for name, counts in stats.by_drafter.items()},
        decode_s=stats.decode_s,
        peak_memory_bytes=answer.finished.peak_memory_bytes,
        settled_memory_bytes=answer.last_round.memory_bytes if answer.last_round else None,
        context_tokens=answer.last_round.context_tokens if answer.last_round else None,
        energy_j=answer.energy_j,
    )


def _compared(replies: Sequence[tuple[MeasuredReply, tuple[int, ...]]]) -> list[MeasuredReply]:
    """The replies of a block, each compared with the block's first reply without drafting."""
    reference = next(((reply, tokens) for reply, tokens in replies if reply.setting == OFF and tokens), None)
    if reference is None:
        return [reply for reply, _ in replies]
    compared = []
    for reply, tokens in replies:
        position = first_difference(tokens, reference[1])
        is_same = None if reply is reference[0] else position is None
        compared.append(msgspec.structs.replace(reply, is_same=is_same, differs_at=position))
    return compared
