"""Prompt lookup: copies what followed the last time that the text went like this. Needs no weights.

The last tokens are matched with every earlier place in the conversation, in constant time per token: by a hash
of the last 8, 4 and 2 of them. The longer the match, the more likely its continuation. Whether the next token of
a match comes true is counted in every round, whoever drafts it and whether or not anything is drafted, so the
chances of a copy are known before the first one is made.

Where a copied text goes on with another word, as a changed name does, the copy resumes behind that word, and the
word is replaced in the same way when it comes again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from mlx_engine.network.checkpoint import OnRead
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.protocol.events import LOOKUP, MAX_DRAFT_LENGTH
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.drafter import DraftedTarget, DrafterSource, Frontier
from mlx_engine.speculation.sampling import Distribution, Sampler, point_masses
from mlx_engine.text.common_prefix import common_length

RUN_LENGTHS = (8, 4, 2)
"""How many of the last tokens must recur, tried in this order. A single token recurs too often to predict
anything."""
LONGEST_MATCH = 32
"""A longer match predicts no better."""
RESUMED_FROM = 4
"""A match of this many tokens that breaks off resumes behind the token that was different."""
RESUMED_WITHIN = 8
"""How far behind the break the copied text may go on: a name of other tokens, or a few words left out."""

FIRST_MATCHES = (0, 1, 2, 4, 8, 16)
"""The shortest match of each class that is counted apart; 0 and 1 follow a break."""
REPLACED, SURPRISING = len(FIRST_MATCHES), len(FIRST_MATCHES) + 1
"""Two classes more: the token is replaced as it was before; it was predicted wrongly itself when it was written,
as the numbers of a list are."""
PRIOR_CHANCES = (0.4, 0.6, 0.3, 0.6, 0.8, 0.9, 0.7, 0.5)
PRIOR_TOKENS = 4.0
"""The prior counts as much as this many tokens."""
COUNTED_TOKENS = 64
"""A token this old counts about a third of a new one: a few sentences of another kind of text."""
MAX_CERTAINTY = 0.99

_CLASS_OF = [sum(first <= matched for first in FIRST_MATCHES) - 1 for matched in range(LONGEST_MATCH + 1)]
"""By the length of a match."""


class CopyChances:
    """How often a copied token is right, by the length of the match before it or by what is known of it."""

    def __init__(self) -> None:
        self._tried = [PRIOR_TOKENS] * len(PRIOR_CHANCES)
        self._right = [PRIOR_TOKENS * chance for chance in PRIOR_CHANCES]
        self.by_class = list(PRIOR_CHANCES)
        """The chance of a token of each class to be right."""

    def observe(self, kind: int, is_right: bool) -> None:
        """Count one token of a class."""
        fading = 1 - 1 / COUNTED_TOKENS
        self._tried[kind] = self._tried[kind] * fading + 1
        self._right[kind] = self._right[kind] * fading + is_right
        self.by_class[kind] = min(self._right[kind] / self._tried[kind], MAX_CERTAINTY)


_LONGER = [
    RESUMED_FROM if matched < 2 else min(matched + 1, LONGEST_MATCH) for matched in range(LONGEST_MATCH + 1)
]
"""The length of a match after one more token, by its length. One that goes on behind a break is as good as before
it."""


class LookupDrafter:
    """A `Drafter` that proposes what followed the longest match of the last tokens, the latest of equals."""

    name = LOOKUP

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._next_position: list[dict[int, int]] = [{} for _ in RUN_LENGTHS]
        """For each run length: hash of a run -> the position after its latest occurrence."""
        self._positions_before: list[tuple[int | None, ...]] = []
        """What each token replaced in `_next_position`, which it gets back when the token is dropped."""
        self._last_runs: list[int] = []
        """Hashes of the last tokens, by run length; none for lengths that the text does not have yet."""
        self._source: int | None = None
        """Position of the token that is predicted to come next; None: nothing matches."""
        self._matched = 0
        """Tokens before `_source` that are the latest tokens too."""
        self._break: tuple[int, int] | None = None
        """Where the latest copy broke off: the position behind the token that was different, and the one that
        came instead of it."""
        self._replacements: dict[int, int] = {}
        """Token that was copied wrongly -> the one that came instead, if the copy went on behind it."""
        self._surprising: set[int] = set()
        """Positions of tokens of the reply that were predicted wrongly."""
        self._chances = CopyChances()

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        """Index the prompt, of which the conversation so far is kept as far as it is the same."""
        same = common_length(self._tokens, prompt)
        self._drop_from(same)
        self._source = self._break = None
        self._replacements = {}
        self._surprising = {position for position in self._surprising if position < same}
        for token in prompt[same:]:
            self._take_in(token)
        self._look_for_better_match()
        return iter(())

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        """See Drafter."""
        for token in committed[len(self._tokens) :]:
            self._append(token)
        if self._source is None or limit < 1:
            return Offer(0, ())
        tokens, chances = min(limit, MAX_DRAFT_LENGTH), self._chances.by_class
        return Offer(tokens, [chances[kind] for _, kind in self._copy(self._source, tokens)])

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. A point mass at each token, whatever the sampler: there are no logits to draw from."""
        assert self._source is not None, "only what was offered is asked for"
        tokens = [token for token, _ in self._copy(self._source, length)]
        return point_masses(tokens)

    def rollback(self, rejected: int) -> None:
        """Nothing to forget: only committed tokens are indexed."""

    def _copy(self, source: int, length: int) -> list[tuple[int, int]]:
        """Tokens from `source` on, each with its class. Past the end they start over, as a text that repeats
        itself does."""
        copied, matched = [], self._matched
        period = len(self._tokens) - source
        for step in range(length):
            copied.append(self._predicted(source + step % period, matched))
            matched = _LONGER[matched]
        return copied

    def _predicted(self, source: int, matched: int) -> tuple[int, int]:
        """The token that a match predicts, and its class."""
        token = self._tokens[source]
        if token in self._replacements and matched:
            return self._replacements[token], REPLACED
        return token, SURPRISING if source in self._surprising else _CLASS_OF[matched]

    def _append(self, token: int) -> None:
        """Take in the reply's next token, and find out what the tokens up to it predict."""
        if self._source is not None:
            self._follow(self._source, token)
        self._take_in(token)
        self._look_for_better_match()
        if self._source is None and self._break:
            self._resume(token, *self._break)

    def _follow(self, source: int, token: int) -> None:
        """Go on with the match, or break it off."""
        predicted, kind = self._predicted(source, self._matched)
        self._chances.observe(kind, predicted == token)
        if predicted != token:
            self._surprising.add(len(self._tokens))
        if token == self._tokens[source]:
            self._replacements.pop(token, None)
        if token in (predicted, self._tokens[source]):
            if self._matched == 0 and self._break:
                behind, replaced_at = self._break
                self._replacements[self._tokens[behind - 1]] = self._tokens[replaced_at]
            self._source, self._matched = source + 1, _LONGER[self._matched]
            return
        is_break = self._matched >= RESUMED_FROM
        self._source, self._matched = (source + 1, 0) if is_break else (None, 0)
        if is_break:
            self._break = source + 1, len(self._tokens)

    def _look_for_better_match(self) -> None:
        """Take the longest match unless the one that is followed is more likely to go on."""
        tokens = self._tokens
        for length, run, next_position in self._runs():
            position = next_position.get(run, len(tokens))
            if position >= len(tokens):
                continue
            if position == self._source:
                return
            matched = _matched_before(tokens, position)
            if matched >= length and self._is_better(matched):
                self._source, self._matched = position, matched
                return

    def _is_better(self, matched: int) -> bool:
        if self._source is None:
            return True
        found, followed = (self._chances.by_class[_CLASS_OF[length]] for length in (matched, self._matched))
        return (found, matched) >= (followed, self._matched)

    def _resume(self, token: int, behind: int, replaced_at: int) -> None:
        """Go on behind a break where `token`, which came later, stands in the text that was being copied."""
        if len(self._tokens) - replaced_at > RESUMED_WITHIN:
            self._break = None
            return
        within = self._tokens[behind : min(behind + RESUMED_WITHIN, len(self._tokens) - 1)]
        if token in within:
            self._source, self._matched = behind + within.index(token) + 1, 1

    def _take_in(self, token: int) -> None:
        """Append a token, and remember that it comes after the runs that ended here."""
        before = []
        for _, run, next_position in self._runs():
            before.append(next_position.get(run))
            next_position[run] = len(self._tokens)
        self._positions_before.append(tuple(before))
        self._tokens.append(token)
        self._hash_last_runs()

    def _drop_from(self, position: int) -> None:
        """Forget the tokens from a position on. Else the runs of a reply would hide those that it was copied from,
        and the next reply to the same message would find nothing to copy."""
        while len(self._tokens) > position:
            self._tokens.pop()
            self._hash_last_runs()
            for (_, run, next_position), before in zip(self._runs(), self._positions_before.pop()):
                if before is None:
                    del next_position[run]
                else:
                    next_position[run] = before

    def _runs(self) -> Iterator[tuple[int, int, dict[int, int]]]:
        """The runs that end here, the longest first: their lengths, hashes and later positions."""
        lengths = RUN_LENGTHS[len(RUN_LENGTHS) - len(self._last_runs) :]
        return zip(lengths, self._last_runs, self._next_position[-len(lengths) :])

    def _hash_last_runs(self) -> None:
        tail = tuple(self._tokens[-RUN_LENGTHS[0] :])
        self._last_runs = [hash(tail[-length:]) for length in RUN_LENGTHS if len(tail) >= length]


def _matched_before(tokens: Sequence[int], position: int) -> int:
    """How many tokens before `position` are the same as the last ones, up to LONGEST_MATCH."""
    matched, end = 0, len(tokens)
    while matched < min(LONGEST_MATCH, position) and tokens[position - 1 - matched] == tokens[end - 1 - matched]:
        matched += 1
    return matched


def load(source: DrafterSource, target: DraftedTarget, on_read: OnRead) -> LookupDrafter:
    """See LoadDrafter."""
    return LookupDrafter()
