"""Replies that are known before they are made, to prove the choice between drafters on; no model and no clock.

The words of a text are its tokens. The real lookup drafter and the real policy decide every round; an assistant is
simulated by how often its drafts are accepted. What a round costs is known too, so a run has a true speed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.protocol.events import LOOKUP, MAX_DRAFT_LENGTH, RoundFacts
from mlx_engine.speculation.adaptive_draft import AdaptiveDraft
from mlx_engine.speculation.draft_choice import Choice, Offer
from mlx_engine.speculation.drafter import Frontier
from mlx_engine.speculation.lookup import LookupDrafter
from tests.mlx_engine.helpers import GREEDY, token_list
from tests.mlx_engine.speculation.drafting_simulator import Curve, Hazards

ASSISTANT = "assistant"

STORY = """\
Anna works in a small workshop at the end of the street. Every morning she opens the wooden door, turns on the
lamp above the bench, and looks at the list that her father left on the wall. Today the list says: mend the
clock of the baker, sharpen the knives of the inn, and paint the sign of the school. Anna takes the clock first.
Its case is made of dark wood, and one of the wheels inside has lost a tooth. She files a new one from a piece
of brass, sets it in place, and winds the spring until the hands begin to move. At noon Anna eats her bread in
the yard. In the afternoon she walks to the inn, where the cook is waiting for his knives. "You are late, Anna,"
he says, "but the soup is not ready either." When the sun goes down, the sign of the school is blue again, and
Anna locks the wooden door."""

CODE = """def total_price(orders, rate):
    total = 0
    for order in orders:
        if order.is_cancelled:
            continue
        price = order.count * order.unit_price
        if order.count > 100:
            price = price * 0.9
        total = total + price
    return total * (1 + rate)

def average_price(orders, rate):
    if not orders:
        return 0
    return total_price(orders, rate) / len(orders)
"""


def numbered(first: int, last: int) -> str:
    """The items of a list."""
    items = (
        f"{n}. Check the pump at station {n} and write the pressure into the log." for n in range(first, last)
    )
    return "\n".join(items)


def words(text: str) -> list[str]:
    """Words, spaces with the word after them, and single marks."""
    return re.findall(r" ?\w+|\s+|[^\w\s]", text)


TASKS: dict[str, tuple[str, str]] = {
    "repeat": ("Repeat this:\n" + STORY, STORY),
    "change a name": ("Write Maria instead of Anna:\n" + STORY, STORY.replace("Anna", "Maria")),
    "a name of two words": ("Write Anna Maria:\n" + STORY, STORY.replace("Anna", "Anna Maria")),
    "rename in code": ("Rename orders to items:\n" + CODE, CODE.replace("order", "item")),
    "add a line of code": (
        "Log every price:\n" + CODE,
        CODE.replace("        total = ", "        log(price)\n        total = ", 1),
    ),
    "continue a list": ("Continue up to 20:\n" + numbered(1, 9), numbered(9, 21)),
}
"""Rewriting and quoting: what was asked, and the reply."""


@dataclass
class DictatedReply:
    """A reply to a prompt, with an assistant of a known quality and rounds of known costs."""

    prompt: Sequence[int]
    reply: Sequence[int]
    hazards: Hazards
    drafting: Curve
    """Cost of a round with the assistant, by length."""
    verifying: Curve
    """Cost of a round with drafts that cost nothing, by length."""
    seed: int = 0
    made: list[tuple[str, int, int]] = field(default_factory=list)
    """Drafter, drafted and accepted tokens of each round."""
    cost: float = 0.0

    def run(self, policy: AdaptiveDraft, lookup: LookupDrafter | None) -> float:
        """Make the reply; its tokens per plain round."""
        chance = random.Random(self.seed)
        committed, end = list(self.prompt), len(self.prompt) + len(self.reply)
        text = [*self.prompt, *self.reply]
        if lookup:
            lookup.prefill(self.prompt, ())
        is_ahead = False
        while len(committed) < end:
            offers = [Offer(min(MAX_DRAFT_LENGTH, end - len(committed) - 1))]
            if lookup:
                offers.append(lookup.offer(committed, end - len(committed) - 1))
            choice = policy.choose(offers)
            accepted = self._accepted(choice, lookup, text, len(committed), chance)
            is_pipelined = is_ahead and choice.length == 0
            is_ahead = choice.length == 0
            committed += text[len(committed) : len(committed) + accepted + 1]
            name = ("", ASSISTANT, LOOKUP)[0 if not choice.length else choice.drafter + 1]
            curve = self.verifying if name == LOOKUP else self.drafting
            cost = curve[choice.length] * (1.0 if choice.length or is_pipelined else 1.1)
            self.cost += cost
            self.made.append((name, choice.length, accepted))
            done = RoundFacts((0,) * (accepted + 1), choice.length, accepted, is_pipelined, 500, name)
            policy.observe(done, 0.03 * cost * chance.lognormvariate(0, 0.1))
        return len(self.reply) / self.cost

    def _accepted(
        self, choice: Choice, lookup: LookupDrafter | None, text: Sequence[int], at: int, chance: random.Random
    ) -> int:
        if choice.drafter == 0:
            return next((i for i in range(choice.length) if chance.random() >= self.hazards[i]), choice.length)
        assert lookup
        frontier = Frontier(mx.array([text[at - 1]]), mx.zeros((1, 1, 1)), None)
        proposal = lookup.propose(text[:at], frontier, TargetCache([], {}), choice.length, GREEDY)
        draft = token_list(proposal.tokens)
        right = zip(draft, text[at : at + choice.length], strict=True)
        return next((index for index, (one, other) in enumerate(right) if one != other), choice.length)

    @property
    def tokens_per_round(self) -> float:
        return len(self.reply) / len(self.made)


def tokens_of(*texts: str) -> list[list[int]]:
    """The texts as token ids, the same for equal words."""
    ids: dict[str, int] = {}
    return [[ids.setdefault(word, len(ids)) for word in words(text)] for text in texts]
