"""The loop: prefill, then rounds of speculative decoding until the reply ends.

A round, in the order of the papers (Leviathan et al. 2023; Chen et al. 2023):

    propose   the drafter proposes K tokens to follow the frontier
    verify    the target reads the frontier's token and the K drafts in one pass: K + 1 rows
    accept    the rule keeps a prefix of the drafts and adds the target's own token after it
    roll back the caches forget the rows of the drafts that fell, once
    commit    what was accepted becomes part of the reply, and only then is it emitted

K may differ from round to round; K = 0 is plain decoding, by the same code. `begin_round` puts the first
three steps on the device without waiting; `finish_round` reads their outcome, the one host synchronisation
of a round, and does the rest. A plain round leaves nothing to roll back, so the round after it is begun
before its outcome is read, and the device never waits for the host.

Knows nothing of text, files, processes or clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import Target
from mlx_engine.protocol.errors import BrokenNumbersError
from mlx_engine.protocol.events import FinishReason
from mlx_engine.speculation.acceptance import accept
from mlx_engine.speculation.drafters import Drafter, Frontier
from mlx_engine.speculation.sampling import NOTHING_DRAFTED, Sampler, Use, history_after, history_rows

BROKEN = -1
"""In an outcome: a score of the target's was not finite, and the rest means nothing."""


class Control(Protocol):
    """What decides while a reply is being made; asked between rounds."""

    def next_length(self) -> int:
        """Tokens to draft in the next round; 0 is a plain round. Asking changes nothing."""
        ...

    @property
    def is_cancelled(self) -> bool:
        """The reply should end, with what it has."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What one reply needs to know: how to draw tokens, when to end, and who may change its course."""

    sampler: Sampler
    stop_tokens: frozenset[int]
    max_tokens: int
    """At most this many tokens are committed; at least 1."""
    control: Control
    marks: tuple[int, ...] = ()
    """Positions in the prompt where a later prompt may part from it; see PrefixCache.prefill."""


@dataclass(frozen=True, slots=True)
class Committed:
    """One round's outcome."""

    token_ids: tuple[int, ...]
    """In order; a stop token is the last. The first `accepted` of them were drafted."""
    drafted: int
    accepted: int
    """Drafts that stood and are part of the reply: those behind a stop token do not count."""
    is_pipelined: bool
    reason: FinishReason | None
    """Why the reply ends here; None if it goes on."""


@dataclass(slots=True)
class Session:
    """One reply's place on the device: the pair, what was read so far, and what was counted on the way."""

    target: Target
    drafter: Drafter | None
    prefix: PrefixCache
    target_passes: int = 0
    host_syncs: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """A round that is under way on the device."""

    length: int
    hidden: mx.array
    """(1, length + 1, hidden)"""
    token: mx.array
    """(1,): the target's own token after the accepted drafts."""
    seen: mx.array | None
    """(length + 1, vocab) bool: what the reply holds before each row."""
    outcome: mx.array
    """(length + 2,): how many drafts were accepted, that token, and the drafts. BROKEN in place of how many."""
    is_pipelined: bool
    """Begun before the round before it was read."""

    def frontier(self, accepted: int) -> Frontier:
        """The frontier that this round leaves behind."""
        here = slice(accepted, accepted + 1)
        seen = None if self.seen is None else history_after(self.seen[here], self.token)
        return Frontier(self.token, self.hidden[:, here], seen)


def generate(
    session: Session, plan: Plan, on_prefill: Callable[[int], None] = lambda done_tokens: None
) -> Iterator[Committed]:
    """Make one reply to the prompt that `session.prefix` was resumed with.

    Yields each round as it is committed; the last one carries the reason.
    """
    frontier = prefill(session, plan, on_prefill)
    if frontier is None:
        yield Committed((), 0, 0, False, "cancelled")
        return
    budget = plan.max_tokens
    pending = begin_round(session, plan, frontier, _next_length(session, plan, budget))
    while True:
        ahead = begin_ahead(session, plan, pending, budget - 1)
        done = finish_round(session, plan, pending, ahead, budget)
        yield done
        if done.reason:
            return
        budget -= len(done.token_ids)
        if ahead is None:
            length = _next_length(session, plan, budget)
            ahead = begin_round(session, plan, pending.frontier(done.accepted), length)
        pending = ahead


def prefill(session: Session, plan: Plan, on_prefill: Callable[[int], None]) -> Frontier | None:
    """Read the prompt up to its last token, which becomes the frontier; None if cancelled between chunks.

    Stopping one short gives the first round what every round starts from: an unread token and the
    hidden state before it. The vocabulary projection is never computed for a prompt.
    """
    prefix = session.prefix
    prompt = prefix.tokens
    readers = [prefix.prefill(plan.marks)]
    if session.drafter:
        readers.append(session.drafter.prefill(prompt, plan.marks))
    for reader in readers:
        for _ in reader:
            on_prefill(prefix.cache.frontier)
            if plan.control.is_cancelled:
                return None
    assert prefix.hidden is not None, "resume leaves a token to read"
    seen = mx.zeros((1, session.target.facts.vocab_size), mx.bool_) if plan.sampler.needs_history else None
    return Frontier(mx.array(prompt[-1:], dtype=mx.int32), prefix.hidden, seen)


def begin_round(
    session: Session, plan: Plan, frontier: Frontier, length: int, is_pipelined: bool = False
) -> Pending:
    """Propose `length` tokens, verify them, apply the rule: all on the device, nothing read."""
    sampler, cache = plan.sampler, session.prefix.cache
    position = cache.frontier + 1  # of the token that the first row chooses
    draft = NOTHING_DRAFTED
    if length and session.drafter:
        draft = session.drafter.propose(session.prefix.tokens, frontier, cache, length, sampler)
    length = len(draft.tokens)
    drafts = [draft.tokens] if length else []  # nothing empty goes to the device
    rows = mx.concatenate([frontier.token, *drafts])
    hidden = session.target.forward(rows[None], cache)
    seen = history_rows(frontier.seen, draft.tokens)
    logits = session.target.logits(hidden)
    target = sampler.draw(logits, position, Use.TARGET, seen)
    verdict = accept(draft, target, (sampler.key(position, Use.ACCEPT), sampler.key(position, Use.RESIDUAL)))
    # The largest of numbers is not one if any of them is not: one reduction, and nothing more to wait for.
    accepted = mx.where(mx.isfinite(mx.max(logits)), verdict.accepted, BROKEN)
    outcome = mx.concatenate([accepted[None], verdict.token, *drafts])
    mx.async_eval(outcome, hidden)
    session.target_passes += 1
    return Pending(length, hidden, verdict.token, seen, outcome, is_pipelined)


def begin_ahead(session: Session, plan: Plan, pending: Pending, left_after: int) -> Pending | None:
    """Begin the round after `pending` before that is read, if both are plain; else None.

    Only a plain round leaves a frontier that is known without knowing its outcome. left_after: tokens that may
    be committed after it.
    """
    if pending.length or left_after < 1 or _next_length(session, plan, left_after):
        return None
    return begin_round(session, plan, pending.frontier(0), 0, is_pipelined=True)


def finish_round(session: Session, plan: Plan, pending: Pending, ahead: Pending | None, budget: int) -> Committed:
    """Read a round's outcome, cut it behind a stop token, roll the caches back once, and commit.

    Raises BrokenNumbersError, with the caches as they were left.
    """
    passed, own, *draft = _read(session, pending.outcome)
    if passed == BROKEN:
        raise BrokenNumbersError(
            "The model gave scores that are not numbers (NaN), and the reply ends here. Ask again; "
            "if it happens again, verify the model's files."
        )
    run = (*draft[:passed], own)
    end = next((length for length, token in enumerate(run, 1) if token in plan.stop_tokens), None)
    committed = run[:end]
    reason: FinishReason | None = None
    if end is not None:
        reason = "stop"
    elif len(committed) == budget:
        reason = "length"
    elif plan.control.is_cancelled:
        reason = "cancelled"
    accepted = min(passed, len(committed))
    # A round begun ahead of the reply's end is for nothing: its row goes as well.
    _rollback(session, fallen=pending.length - accepted, unused=1 if ahead and reason else 0)
    session.prefix.tokens.extend(committed)
    return Committed(committed, pending.length, accepted, pending.is_pipelined, reason)


def _rollback(session: Session, fallen: int, unused: int) -> None:
    session.prefix.cache.rollback(fallen + unused)
    if session.drafter:
        session.drafter.rollback(fallen)


def _read(session: Session, outcome: mx.array) -> list[int]:
    session.host_syncs += 1
    return outcome.tolist()  # type: ignore[return-value]


def _next_length(session: Session, plan: Plan, budget: int) -> int:
    """The next round's length: no draft that the budget would cut off, none that the drafter has not got."""
    if session.drafter is None:
        return 0
    return session.drafter.reach(session.prefix.tokens, min(plan.control.next_length(), budget - 1))
