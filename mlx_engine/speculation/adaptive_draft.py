"""The automatic draft: the drafter and length that are fastest by what rounds cost and bring. No MLX, no clock.

Two estimates are kept up to date from round to round:

    Acceptance  how often a drafter's draft at each position is accepted, with thinking and without
                                                                          -> expected tokens of a round
    Costs       how long a round of each drafter and length takes         -> seconds of a round

`AdaptiveDraft` picks the arm, a drafter with a length, that has the most expected tokens per second. Drafters that
tell the chances of each offer themselves (copies of earlier text) are weighed against that arm round by round.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mlx_engine.protocol.events import FORCED, LOOKUP, MAX_DRAFT_LENGTH, RoundFacts
from mlx_engine.protocol.stats import PLAIN_ROUNDS_NEEDED, is_another_context
from mlx_engine.speculation.draft_choice import (
    BURST_ROUNDS,
    FIRST_BURST_AFTER_ROUNDS,
    PLAIN,
    Choice,
    Offer,
    Offers,
    expected_tokens,
)
from mlx_engine.speculation.estimates import (
    MAX_MISSES,
    MOST_SAVED_TOKENS,
    VERSION,
    AcceptanceEstimates,
    DrafterEstimates,
    Estimates,
)
from mlx_engine.speculation.learned_acceptance import Acceptance
from mlx_engine.speculation.learned_costs import Costs

PROBING_SHARE = 0.02
"""Share of the tokens that probes may cost; also most of what drafting may cost where it does not help."""
SETTLED_SHARE, SETTLED_ROUNDS = 0.007, 300
"""Where drafting helps and every arm was tried once, costs change slowly and probes find little."""
SWITCHING_COST = 0.15
"""What a round costs besides if it interrupts plain ones, in plain rounds: the next has to wait for the host."""
FIRST_ROUND_COST = 1.0
"""What the first round of an arm in a run costs besides, in rounds of that arm: something compiles, or is cold."""
FREE_MISSES = 3
"""A miss is a drafting round without an accepted draft. Each miss beyond these halves how often probes are made,
down to an eighth, and an accepted draft halves the misses. Prose has three in a row now and then; a useless
drafter has little else."""
GUESSED_ROW_COST = 0.05
"""What each row of a verify pass costs before any was measured, in plain rounds; low, so that it is measured."""
FULL_TILE_LENGTH, LONG_LENGTH = 15, 8
"""16 rows fill a tile of the kernels for matrices, and can cost less than 8: the line through shorter lengths does
not show it. Where this many drafts or more pay, rounds of 16 rows are therefore measured for themselves."""
COPY_MARGIN = 1.1
"""By how much a copy must promise to be faster: the best of many uncertain promises is mostly too good."""
MISSED_COPY_MARGIN = 0.15
"""By how much more for each recent copy that brought nothing. Rewritten text promises several times as much."""
COPY_LENGTHS = frozenset({1, 2, 3, 4, 6, 8, 12, 16})
"""Few enough that each is measured soon."""
PLAIN_ROUNDS_A_DECISION = 4
"""While plain rounds are best, whether to probe is decided this often: they are the shortest rounds there are."""
MOST_POSTPONED_ROUNDS = 64
"""A probe waits for so many rounds while copies are better; without a limit the baseline would never be known."""


class AdaptiveDraft:
    """The arm with the most expected tokens per second; plain decoding is one of them.

    What is known of the arms that are not in use goes stale, so they are probed. A small share of every token is
    saved up; when the savings cover the tokens that the most overdue probe will probably lose, it is made. Cheap
    probes are therefore frequent, and hopeless ones rare.
    """

    def __init__(
        self,
        drafters: Sequence[str],
        start_length: int,
        kept: Estimates | None = None,
        telling: Collection[str] = (LOOKUP, FORCED),
        *,
        pipelines_plain: bool = True,
    ) -> None:
        """drafters: their names, in the order of the offers. start_length: used until enough is known. kept: what
        an earlier run learned. telling: drafters whose offers come with their chances. pipelines_plain: the loop
        begins plain rounds ahead, and only those show what one costs; False: every plain round does."""
        self._names = tuple(drafters)
        self._pipelines_plain = pipelines_plain
        self._learned = [index for index, name in enumerate(drafters) if name not in telling]
        self._arms = [PLAIN, *(Choice(i, n) for i in self._learned for n in range(1, MAX_DRAFT_LENGTH + 1))]
        self._acceptances = {
            is_thinking: {i: Acceptance(_kept(kept, self._names[i], is_thinking)) for i in self._learned}
            for is_thinking in (False, True)
        }
        """By whether the reply is one with thinking, which many drafters were not trained on."""
        self._acceptance = self._acceptances[False]
        """Of the reply that is being made."""
        self._start_length = start_length
        self._context_tokens = kept.context_tokens if kept else 0
        self._misses = kept.misses if kept else 0
        self._saved_tokens = kept.saved_tokens if kept else 0.0
        self._copy_misses = kept.copy_misses if kept else 0
        self._expected_tokens = 0.0
        self._cold = set(self._arms) if kept else set()
        """Arms that are known from an earlier run and were not made in this one."""
        self._probe: Choice | None = None
        self._ranking: list[Choice] = []
        """The best arm of every drafter and the plain one, the fastest first."""
        self._undecided_rounds = 0
        """Rounds since the ranking was made; some of them if plain rounds were the best and all were plain."""
        self._is_used = True
        """Asked since the latest round: the rounds are chosen here, not by a fixed length."""
        self._reset_costs(kept)
        self._decide()

    def _reset_costs(self, kept: Estimates | None = None) -> None:
        """Start from the costs of an earlier run, or learn them from scratch."""
        self._costs = Costs(self._names, kept, pipelines_plain=self._pipelines_plain)
        self._rounds = SETTLED_ROUNDS if kept else 0
        self._plain_rounds = self._probe_rounds = self._postponed_rounds = 0
        self._last_round_of = dict.fromkeys(self._arms, self._rounds)
        """By arm: the number of its latest round."""

    @property
    def estimates(self) -> Estimates:
        """What a later run starts from."""
        replies, thinking = (self._acceptances[is_thinking] for is_thinking in (False, True))
        drafters = {
            name: DrafterEstimates(
                rounds_s=self._costs.rounds_s(name),
                acceptance=replies[index].estimates if index in replies else None,
                acceptance_thinking=thinking[index].estimates if index in thinking else None,
            )
            for index, name in enumerate(self._names)
        }
        return Estimates(
            version=VERSION,
            drafters=drafters,
            plain_rounds_s=self._costs.plain_rounds_s,
            context_tokens=self._context_tokens,
            misses=self._misses,
            copy_misses=self._copy_misses,
            saved_tokens=min(max(self._saved_tokens, -MOST_SAVED_TOKENS), MOST_SAVED_TOKENS),
        )

    def begin_reply(self, is_thinking: bool) -> None:
        """From here on rounds belong to a reply with or without thinking: acceptance is learned apart."""
        if self._acceptance is not self._acceptances[is_thinking]:
            self._acceptance = self._acceptances[is_thinking]
            self._undecided_rounds = PLAIN_ROUNDS_A_DECISION

    def choose(self, offers: Offers) -> Choice:
        """See DraftPolicy."""
        if not offers:
            return PLAIN
        self._is_used = True
        is_idle = self._ranking[0] == PLAIN and self._undecided_rounds < PLAIN_ROUNDS_A_DECISION
        if self._undecided_rounds and not self._probe and not is_idle:
            self._decide()
        planned = self._within(offers)
        is_due = self._postponed_rounds >= MOST_POSTPONED_ROUNDS
        if self._probe and (is_due or self._probe_rounds < _rounds_of(self._probe)):
            return planned
        return self._better_copy(planned, offers) or planned

    def tokens_of(self, index: int, offer: Offer, length: int) -> float:
        """Expected tokens of a round that drafts `length` tokens of an offer."""
        if offer.chances is not None:
            return expected_tokens(offer.chances, length)
        return self._acceptance[index].tokens_per_round()[length] if index in self._acceptance else 1.0

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """See DraftPolicy."""
        if is_another_context(self._context_tokens, done.context_tokens):
            self._reset_costs()
            self._probe = None
        self._context_tokens = done.context_tokens
        self._costs.observe(done, round_s)
        self._rounds += 1
        self._plain_rounds += done.is_pipelined or not (done.drafted or self._pipelines_plain)
        arm = self._arm_of(done)
        if arm is None:
            if done.drafter != FORCED:
                self._copy_misses = _misses_after(self._copy_misses, done)
        else:
            self._last_round_of[arm] = self._rounds
            self._cold.discard(arm)
            for index, acceptance in self._acceptance.items():
                if not arm.length or index == arm.drafter:
                    acceptance.observe(done)
            if arm.length:
                self._misses = _misses_after(self._misses, done)
        if self._is_used:
            is_settled = (self._probe or self._ranking[0]).length > 0 and self._rounds > SETTLED_ROUNDS
            self._saved_tokens += (SETTLED_SHARE if is_settled else PROBING_SHARE) * (done.accepted + 1)
        self._is_used = False
        self._undecided_rounds += PLAIN_ROUNDS_A_DECISION if done.drafted else 1
        if self._probe:
            self._follow_probe(self._probe, done, arm)

    def _arm_of(self, done: RoundFacts) -> Choice | None:
        """None for a round that copied."""
        if not done.drafted:
            return PLAIN
        index = self._names.index(done.drafter)
        return Choice(index, done.drafted) if index in self._acceptance else None

    def _follow_probe(self, probe: Choice, done: RoundFacts, arm: Choice | None) -> None:
        if arm is None:
            self._postponed_rounds += 1
            return
        if done.is_pipelined and probe.length:
            return  # this round was under way before the drafting round was asked for
        self._postponed_rounds = 0
        self._probe_rounds -= 1
        if probe.length and arm == probe:
            # Tokens beyond the expected ones pay for the next probe: a change for the better is noticed sooner.
            self._saved_tokens += done.accepted + 1 - self._expected_tokens
        if self._probe_rounds == 0:
            self._probe = None
            self._undecided_rounds = PLAIN_ROUNDS_A_DECISION

    def _within(self, offers: Offers) -> Choice:
        """The probe, or else the fastest arm, as far as it is offered."""
        for choice in [self._probe, *self._ranking] if self._probe else self._ranking:
            assert choice
            if choice.length == 0:
                return PLAIN
            if length := min(choice.length, offers[choice.drafter].tokens):
                return Choice(choice.drafter, length)
        return PLAIN

    def _better_copy(self, planned: Choice, offers: Offers) -> Choice | None:
        """A round of a drafter that tells its chances, if it promises more tokens per second than `planned`."""
        best, most = None, 0.0
        for index, offer in enumerate(offers):
            if offer.chances is None or not offer.tokens:
                continue
            margin = 1.0 if offer.is_certain else self._copy_margin
            most = max(most, margin * self._pace_of(planned))
            seconds, tokens, reached = self._rounds_s(index), 1.0, 1.0
            interruption_s = 0.0 if planned.length else SWITCHING_COST * seconds[0]
            for length, chance in enumerate(offer.chances[: offer.tokens], 1):
                reached *= chance
                tokens += reached
                pace = tokens / (seconds[length] + interruption_s)
                if pace > most and (offer.is_certain or length in COPY_LENGTHS):
                    best, most = Choice(index, length), pace
        return best

    @property
    def _copy_margin(self) -> float:
        return COPY_MARGIN + MISSED_COPY_MARGIN * self._copy_misses

    def _pace_of(self, planned: Choice) -> float:
        """Expected tokens per second of an arm."""
        if planned.length == 0:
            return 1 / (self._costs.plain_s or 1.0)
        tokens = self._acceptance[planned.drafter].tokens_per_round()[planned.length]
        return tokens / self._rounds_s(planned.drafter)[planned.length]

    def _rounds_s(self, index: int) -> list[float]:
        """Seconds of a round of each length 0 to 16 with this drafter."""
        curve = self._costs.curve(self._names[index])
        if curve is None:
            plain_s = self._costs.plain_s or 1.0
            curve = [plain_s * (1 + GUESSED_ROW_COST * length) for length in range(MAX_DRAFT_LENGTH + 1)]
        return curve

    def _decide(self) -> None:
        """Rank the arms by what is known now, and start a probe if one is due."""
        self._undecided_rounds = 0
        unknown = [index for index in self._learned if self._costs.curve(self._names[index]) is None]
        if unknown:
            self._ranking = [Choice(index, self._start_length) for index in unknown]
            is_waiting = self._costs.knows(self._names[unknown[0]]) or self._rounds >= FIRST_BURST_AFTER_ROUNDS
            if self._costs.plain_s is None and is_waiting:
                self._start_probe(PLAIN, 0.0, 1.0)
            return
        costs_s, tokens = [self._costs.plain_s or 1.0], [1.0]
        for index in self._learned:
            costs_s += self._rounds_s(index)[1:]
            tokens += self._acceptance[index].tokens_per_round()[1:]
        speeds = [count / cost_s for count, cost_s in zip(tokens, costs_s)]
        best = speeds.index(max(speeds))
        self._ranking = self._ranked(speeds)
        if len(self._arms) > 1:
            self._probe_if_due(best, speeds, costs_s, tokens)
        elif self._owes_plain:  # only copies are drafted, and they could leave no plain round
            self._start_probe(PLAIN, 0.0, 1.0)

    @property
    def _owes_plain(self) -> bool:
        """The baseline decode speed is not known yet."""
        return self._plain_rounds < PLAIN_ROUNDS_NEEDED and self._rounds >= FIRST_BURST_AFTER_ROUNDS

    def _ranked(self, speeds: Sequence[float]) -> list[Choice]:
        fastest: dict[int, tuple[float, Choice]] = {-1: (speeds[0], PLAIN)}
        for speed, arm in zip(speeds[1:], self._arms[1:]):
            if arm.drafter not in fastest or speed > fastest[arm.drafter][0]:
                fastest[arm.drafter] = speed, arm
        # Of equals the shorter one, as plain decoding comes first here.
        return [arm for _, arm in sorted(fastest.values(), key=lambda row: row[0], reverse=True)]

    def _probe_if_due(
        self, best: int, speeds: Sequence[float], costs_s: Sequence[float], tokens: Sequence[float]
    ) -> None:
        patience = 1 if best else 2 ** max(0, self._misses - FREE_MISSES)
        switching_s = SWITCHING_COST * costs_s[0]
        owes_plain = self._owes_plain
        if self._saved_tokens < switching_s * speeds[best] * patience and not owes_plain:
            return  # nothing is that cheap

        def loss_tokens(arm: int) -> float:
            """What probing an arm will probably lose."""
            choice = self._arms[arm]
            lost_s = _rounds_of(choice) * costs_s[arm] * (1 - speeds[arm] / speeds[best])
            if choice in self._cold:
                lost_s += FIRST_ROUND_COST * costs_s[arm] * _rounds_of(choice)
            return (lost_s + switching_s) * speeds[best] * patience

        def overdue(arm: int) -> float:
            return loss_tokens(arm) / (self._rounds - self._last_round_of[self._arms[arm]] + 1)

        if best:
            due = 0 if owes_plain else min((arm for arm in range(len(speeds)) if arm != best), key=overdue)
        else:  # all that matters is whether drafting helps again
            due = speeds.index(max(speeds[1:]), 1)
        if not (best and owes_plain) and self._is_full_tile_unknown(self._arms[best]):
            due = self._arms.index(Choice(self._arms[best].drafter, FULL_TILE_LENGTH))
        if (best and owes_plain) or self._saved_tokens >= loss_tokens(due):
            self._start_probe(self._arms[due], loss_tokens(due), tokens[due])

    def _is_full_tile_unknown(self, best: Choice) -> bool:
        """Long drafts pay, as measured, and rounds of 16 rows were not measured yet."""
        if best.length < LONG_LENGTH:
            return False
        name = self._names[best.drafter]
        return self._costs.is_measured(name, best.length) and not self._costs.is_measured(name, FULL_TILE_LENGTH)

    def _start_probe(self, arm: Choice, loss_tokens: float, expected_tokens: float) -> None:
        self._saved_tokens -= loss_tokens
        self._expected_tokens = expected_tokens
        self._probe, self._probe_rounds, self._postponed_rounds = arm, _rounds_of(arm), 0


def _kept(kept: Estimates | None, name: str, is_thinking: bool) -> AcceptanceEstimates | None:
    """What an earlier run learned of a drafter's acceptance."""
    drafter = kept.drafters.get(name) if kept else None
    if drafter is None:
        return None
    return drafter.acceptance_thinking if is_thinking else drafter.acceptance


def _misses_after(misses: int, done: RoundFacts) -> int:
    return misses // 2 if done.accepted else min(misses + 1, MAX_MISSES)


def _rounds_of(arm: Choice) -> int:
    """How many rounds a probe of this arm takes."""
    return 1 if arm.length else BURST_ROUNDS
