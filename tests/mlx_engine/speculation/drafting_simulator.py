"""Published round costs and acceptance, for a DraftPolicy to prove itself on; no model and no clock.

`python -m tests.mlx_engine.speculation.drafting_simulator` prints what the automatic length makes of
every curve and kind of text. Costs are in plain rounds. The throughput of a run is counted with the true costs
and the true expected tokens of the lengths that were chosen: chance misleads the policy, never the count.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, RoundFacts
from mlx_engine.speculation.adaptive_draft import AdaptiveDraft
from mlx_engine.speculation.draft_choice import PLAIN, DraftPolicy, Offer
from mlx_engine.speculation.estimates import Estimates
from mlx_engine.speculation.steering import Steering

Curve = Sequence[float]
"""Cost of a round of each length 0 to 16."""
Hazards = Sequence[float]
"""Chance of the draft at each position to stand, given that those before it did."""


DRAFTER = "assistant"


def round_facts(
    drafted: int, accepted: int, is_pipelined: bool, context_tokens: int = 0, drafter: str = DRAFTER
) -> RoundFacts:
    """A round with made-up tokens."""
    drafter = drafter if drafted else ""
    return RoundFacts((0,) * (accepted + 1), drafted, accepted, is_pipelined, context_tokens, drafter)


def adaptive(start_length: int, kept: Estimates | None = None) -> AdaptiveDraft:
    """The automatic draft with one drafter, which does not tell its chances."""
    return AdaptiveDraft((DRAFTER,), start_length, kept)


def next_length(asked: DraftPolicy | Steering) -> int:
    """The length of the next round, where one drafter offers everything."""
    offers = (Offer(MAX_DRAFT_LENGTH),)
    return (asked.next_draft(offers) if isinstance(asked, Steering) else asked.choose(offers)).length


def line(base: float, per_row: float) -> Curve:
    """A published fit; the rows of a verify pass are the drafts and the frontier's token."""
    return [1.0] + [base + per_row * (length + 1) for length in range(1, MAX_DRAFT_LENGTH + 1)]


def through(*points: tuple[int, float]) -> Curve:
    """A published sweep, (rows, milliseconds), with straight lines between."""
    curve = []
    for rows in range(1, MAX_DRAFT_LENGTH + 2):
        left, right = next(pair for pair in pairwise(points) if pair[0][0] <= rows <= pair[1][0])
        share = (rows - left[0]) / (right[0] - left[0])
        curve.append((left[1] + share * (right[1] - left[1])) / points[0][1])
    return curve


def fading(*first: float, then: float) -> Hazards:
    """Measured at the first positions, and about what longer sweeps leave for the others."""
    return [*first, *[then] * (MAX_DRAFT_LENGTH - len(first))]


CURVES = {
    "31B M3 Ultra": line(0.83, 0.170),
    "12B M3 Ultra": line(1.14, 0.090),
    "12B M1 Ultra": line(1.35, 0.346),
    "12B M5 Max": through((1, 25.6), (3, 31.2), (4, 35.5), (8, 57.0), (16, 61.1), (17, 61.6)),
    "26B-A4B, experts per row": line(0.65, 0.50),
    "weights read per five rows": [1.0] + [0.7 + 0.04 * n + 0.5 * -(-(n + 1) // 5) for n in range(1, 17)],
}
KINDS = {
    "enumeration": fading(0.99, 0.99, 0.99, then=0.98),
    "code": fading(0.95, 0.93, 0.90, then=0.80),
    "prose": fading(0.83, 0.79, 0.76, then=0.65),
    "story": fading(0.62, 0.58, 0.55, then=0.50),
    "always wrong": fading(then=0.0),
}


def expected_tokens(hazards: Hazards, length: int) -> float:
    """Tokens of a round of that length."""
    tokens = reached = 1.0
    for hazard in hazards[:length]:
        reached *= hazard
        tokens += reached
    return tokens


def best_throughput(curve: Curve, hazards: Hazards) -> tuple[int, float]:
    """The best fixed length and its tokens per plain round; 0 makes 1."""
    paces = [expected_tokens(hazards, length) / cost for length, cost in enumerate(curve)]
    return max(enumerate(paces), key=lambda pace: pace[1])


@dataclass
class SimulatedPair:
    """A pair on a machine: makes rounds as the loop does, with given costs and acceptance."""

    curve: Curve
    hazards: Hazards
    seed: int = 0
    noise: float = 0.15
    """Spread of the logarithm of a round's cost."""
    stalls: float = 0.02
    """Share of the rounds that take several times as long."""
    growth: float = 0.0
    """By how much each round makes the ones after it slower, of the first one's cost."""
    alone: float = 1.1
    """Cost of a plain round that waited for the one before it to be read."""
    slow_first: float = 1.0
    """How much longer the first round of a length takes."""
    plain_s: float = 0.03
    """What a plain round takes."""
    context_tokens: int = 0
    chosen: list[tuple[int, bool]] = field(default_factory=list)
    """Length of each round, and whether it was pipelined."""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._ahead: int | None = None
        self._seen: set[int] = set()

    def run(self, policy: DraftPolicy, rounds: int) -> float:
        """Make so many rounds; their tokens per plain round."""
        begin = len(self.chosen)
        for _ in range(rounds):
            length = next_length(policy) if self._ahead is None else 0
            is_pipelined = self._ahead is not None
            self._ahead = 0 if length == 0 and next_length(policy) == 0 else None
            accepted, round_s = self.round(length, is_pipelined)
            policy.observe(round_facts(length, accepted, is_pipelined, self.context_tokens), round_s)
        return self.throughput(begin)

    def round(self, length: int, is_pipelined: bool) -> tuple[int, float]:
        """Accepted drafts of one more round, and its seconds."""
        self.chosen.append((length, is_pipelined))
        return self._accepted(length), self._round_s(length)

    def throughput(self, begin: int = 0, end: int | None = None) -> float:
        """Expected tokens per plain round of the rounds from `begin` on, with this text's acceptance."""
        made = self.chosen[begin:end]
        tokens = sum(expected_tokens(self.hazards, length) for length, _ in made)
        return tokens / sum(self.cost(*chosen) for chosen in made)

    def cost(self, length: int, is_pipelined: bool) -> float:
        """Of a round, in plain rounds."""
        return self.curve[length] * (1.0 if length or is_pipelined else self.alone)

    @property
    def first_rounds_cost(self) -> float:
        """What the first rounds of the lengths cost beyond later ones, in plain rounds; not in `throughput`."""
        return sum((self.slow_first - 1) * self.curve[length] for length in self._seen if length)

    def _accepted(self, length: int) -> int:
        fell = (at for at in range(length) if self._chance.random() >= self.hazards[at])
        return next(fell, length)

    def _round_s(self, length: int) -> float:
        cost = self.cost(*self.chosen[-1]) * (1 + self.growth * len(self.chosen))
        if length not in self._seen:
            self._seen.add(length)
            cost *= self.slow_first
        if self._chance.random() < self.stalls:
            cost *= self._chance.uniform(2, 12)
        return self.plain_s * cost * self._chance.lognormvariate(0, self.noise)


@dataclass
class SimulatedDrafters:
    """Several drafters of one target, each with costs and acceptance of its own."""

    drafters: dict[str, SimulatedPair]
    """All of them cost the same in a plain round."""
    chosen: list[tuple[str, int, bool]] = field(default_factory=list)
    """Drafter, length and whether it was pipelined, by round."""
    is_ahead: bool = False

    def run(self, policy: DraftPolicy, rounds: int) -> float:
        """Make so many rounds; their tokens per plain round."""
        begin, names = len(self.chosen), list(self.drafters)
        offers = [Offer(MAX_DRAFT_LENGTH)] * len(names)
        for _ in range(rounds):
            choice = PLAIN if self.is_ahead else policy.choose(offers)
            is_pipelined = self.is_ahead
            self.is_ahead = choice.length == 0 and policy.choose(offers).length == 0
            name = names[choice.drafter]
            self.chosen.append((name, choice.length, is_pipelined))
            accepted, round_s = self.drafters[name].round(choice.length, is_pipelined)
            policy.observe(round_facts(choice.length, accepted, is_pipelined, drafter=name), round_s)
        tokens = cost = 0.0
        for name, length, is_pipelined in self.chosen[begin:]:
            pair = self.drafters[name]
            tokens += expected_tokens(pair.hazards, length)
            cost += pair.cost(length, is_pipelined)
        return tokens / cost

    @property
    def best(self) -> float:
        """Tokens per plain round of the best drafter at its best length."""
        return max(best_throughput(pair.curve, pair.hazards)[1] for pair in self.drafters.values())


def start_length(curve: str) -> int:
    """What `steering.start_length` says of that machine."""
    return 2 if "M1" in curve else 4


def settled(curve: str, kind: str, seed: int) -> tuple[float, float]:
    """Throughput of the automatic length against the best fixed one's: of 200 rounds, and of the 600 after."""
    machine, policy = SimulatedPair(CURVES[curve], KINDS[kind], seed), adaptive(start_length(curve))
    _, best = best_throughput(machine.curve, machine.hazards)
    return machine.run(policy, 200) / best, machine.run(policy, 600) / best


def changed(curve: str, before: str, after: str, seed: int) -> float:
    """The same of 200 rounds that begin 64 rounds after the text became another."""
    machine, policy = SimulatedPair(CURVES[curve], KINDS[before], seed), adaptive(start_length(curve))
    machine.run(policy, 400)
    machine.hazards = KINDS[after]
    machine.run(policy, 64)
    return machine.run(policy, 200) / best_throughput(machine.curve, machine.hazards)[1]


THIN = line(1.3, 0.2)
"""A small network on a processor, where most of a round is the host's work and every row costs more of it."""
TOKENS_OF_RUN = 150
PACES = (1.0, 1.6, 0.7, 1.2, 0.8, 1.5)
"""How slow the machine is from run to run, as other programs come and go."""


def runs_in_turn(curve: Curve, hazards: Hazards, runs: int, seed: int) -> list[float]:
    """Throughput of runs of one short reply each, every one starting from what the run before it saved.

    In each run the first round of a length takes much longer, and the machine is faster or slower than before.
    """
    kept, made = None, []
    for run in range(runs):
        machine = SimulatedPair(curve, hazards, 100 * seed + run, alone=1.3, slow_first=2.5)
        machine.plain_s *= PACES[(run + seed) % len(PACES)]
        policy = adaptive(4, kept)
        tokens = 0.0
        while tokens < TOKENS_OF_RUN:
            machine.run(policy, 1)
            tokens += expected_tokens(hazards, machine.chosen[-1][0])
        made.append(tokens / (tokens / machine.throughput() + machine.first_rounds_cost))
        kept = policy.estimates
    return made


def main() -> None:
    """Print the table."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
    print(f"{'round costs':28}{'text':14}{'best fixed':>12}  auto/best: 200 rounds  600 after  from another text")
    for curve, costs in CURVES.items():
        for kind, hazards in KINDS.items():
            length, best = best_throughput(costs, hazards)
            early, late = map(fmean, zip(*(settled(curve, kind, seed) for seed in seeds)))
            changes = {
                other: fmean(changed(curve, other, kind, seed) for seed in seeds)
                for other in KINDS
                if other != kind
            }
            said = "  ".join(f"{other} {share:.3f}" for other, share in changes.items())
            print(f"{curve:28}{kind:14}{length:>5} {best:5.2f}x{early:23.3f}{late:11.3f}  {said}", flush=True)


if __name__ == "__main__":
    main()
