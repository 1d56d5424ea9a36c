"""The loop: prefill, then rounds of speculative decoding until the reply ends.

A round, in the order of the papers (Leviathan et al. 2023; Chen et al. 2023):

    propose    a drafter proposes K tokens after the frontier
    verify     the target reads the frontier's token and the K drafts in one pass: K + 1 rows
    accept     the rejection rule keeps a prefix of the drafts and adds one token of the target's own
    roll back  the caches forget the rows of the rejected drafts
    commit     the accepted tokens become part of the reply, and only then leave this loop

The drafter and K may differ from round to round; K = 0 is plain decoding, by the same code. `begin_round` puts the
first three steps on the device without waiting. `finish_round` reads their result, the only time in a round that
the host waits for the device, and does the rest. A plain round leaves nothing to roll back, so the round after it
begins before its result is read, and the device never waits for the host.

Knows nothing of text, files, processes or clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import Target
from mlx_engine.protocol.errors import BrokenNumbersError
from mlx_engine.protocol.events import FinishReason, RoundFacts
from mlx_engine.speculation.acceptance import accept
from mlx_engine.speculation.constraint import Constraint, masked
from mlx_engine.speculation.draft_choice import PLAIN, Choice, Offer
from mlx_engine.speculation.drafter import Drafter, Frontier
from mlx_engine.speculation.sampling import (
    NO_DRAFT,
    Distribution,
    RandomStream,
    Sampler,
    history_after,
    history_rows,
)

NOT_FINITE = -1
"""Takes the place of the number of accepted drafts if any of the target's logits is not finite."""


class Control(Protocol):
    """Steers a reply while it is being decoded; asked between rounds."""

    def next_draft(self, offers: Sequence[Offer]) -> Choice:
        """The next round's draft, among what the session's drafters offer. Asking changes nothing."""
        ...

    @property
    def is_cancelled(self) -> bool:
        """The reply should end with what it has."""
        ...


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How to decode one reply."""

    sampler: Sampler
    stop_tokens: frozenset[int]
    max_tokens: int
    """The most tokens to commit; at least 1."""
    control: Control
    branch_points: tuple[int, ...] = ()
    """Positions in the prompt where a later prompt may differ from it; see PrefixCache.prefill."""
    constraint: Constraint | None = None
    """What the reply may consist of; at its start."""


@dataclass(slots=True)
class Session:
    """One reply being decoded: target and drafters, what has been read, and how it went."""

    target: Target
    drafters: Sequence[Drafter]
    """Which one drafts is chosen anew for every round."""
    prefix: PrefixCache
    target_passes: int = 0
    host_syncs: int = 0
    finish_reason: FinishReason | None = None
    """Set with the last round."""


@dataclass(frozen=True, slots=True)
class PendingRound:
    """A round that is under way on the device."""

    drafter: Drafter | None
    """None in a plain round."""
    drafted: int
    hidden: mx.array
    """(1, drafted + 1, hidden)"""
    token: mx.array
    """(1,): the target's own token after the accepted drafts."""
    seen: mx.array | None
    """(drafted + 1, vocab) bool: the tokens that the reply contains before each row."""
    result: mx.array
    """(drafted + 2,): the number of accepted drafts or NOT_FINITE, then `token`, then the drafts."""
    is_pipelined: bool
    """Begun before the result of the round before it was read."""

    def frontier(self, accepted: int) -> Frontier:
        """The frontier after this round."""
        row = slice(accepted, accepted + 1)
        seen = None if self.seen is None else history_after(self.seen[row], self.token)
        return Frontier(self.token, self.hidden[:, row], seen)


def generate(
    session: Session, options: DecodeOptions, on_prefill: Callable[[int], None] = lambda done_tokens: None
) -> Iterator[RoundFacts]:
    """Decode a reply to the prompt that `session.prefix` was resumed with; yield each round once committed.

    A reply cancelled during prefill has one empty round.
    """
    frontier = prefill(session, options, on_prefill)
    if frontier is None:
        session.finish_reason = "cancelled"
        yield RoundFacts((), 0, 0, is_pipelined=False, context_tokens=session.prefix.cache.frontier)
        return
    budget = options.max_tokens
    pending = begin_round(session, options, frontier, _next_draft(session, options, budget))
    while True:
        ahead = begin_ahead(session, options, pending, budget - 1)
        done = finish_round(session, options, pending, ahead, budget)
        yield done
        if session.finish_reason:
            return
        budget -= len(done.token_ids)
        if ahead is None:
            choice = _next_draft(session, options, budget)
            ahead = begin_round(session, options, pending.frontier(done.accepted), choice)
        pending = ahead


def prefill(session: Session, options: DecodeOptions, on_prefill: Callable[[int], None]) -> Frontier | None:
    """Read the prompt up to its last token, which becomes the frontier; None if cancelled between chunks.

    The last token stays unread, as it does before every round, so the first round needs no special case. The LM
    head is never applied to a prompt.
    """
    prefix = session.prefix
    prompt = prefix.tokens
    readers = [prefix.prefill(options.branch_points)]
    readers += [drafter.prefill(prompt, options.branch_points) for drafter in session.drafters]
    for reader in readers:
        for _ in reader:
            on_prefill(prefix.cache.frontier)
            if options.control.is_cancelled:
                return None
    assert prefix.hidden is not None, "resume leaves a token to read"
    seen = mx.zeros((1, session.target.facts.vocab_size), mx.bool_) if options.sampler.needs_history else None
    return Frontier(mx.array(prompt[-1:], dtype=mx.int32), prefix.hidden, seen)


def begin_round(
    session: Session, options: DecodeOptions, frontier: Frontier, choice: Choice, is_pipelined: bool = False
) -> PendingRound:
    """Propose what was chosen, verify it and apply the rejection rule: all on the device, nothing is read."""
    sampler, cache = options.sampler, session.prefix.cache
    position = cache.frontier + 1  # of the token that the first row predicts

    draft, drafter = NO_DRAFT, None
    if choice.length:
        drafter = session.drafters[choice.drafter]
        draft = drafter.propose(session.prefix.tokens, frontier, cache, choice.length, sampler)
    drafts = [draft.tokens] if len(draft.tokens) else []  # Metal gets no empty arrays

    hidden = session.target.forward(mx.concatenate([frontier.token, *drafts])[None], cache)
    logits = session.target.logits(hidden)
    seen = history_rows(frontier.seen, draft.tokens)
    allowed = logits if options.constraint is None else _constrained(session, options.constraint, logits, draft)
    target = sampler.draw(allowed, position, RandomStream.TARGET, seen)

    keys = sampler.key(position, RandomStream.ACCEPT), sampler.key(position, RandomStream.RESIDUAL)
    verdict = accept(draft, target, keys)

    # The maximum is finite only if every logit is a number below infinity: one reduction, no additional wait.
    accepted = mx.where(mx.isfinite(mx.max(logits)), verdict.accepted, NOT_FINITE)
    result = mx.concatenate([accepted[None], verdict.token, *drafts])
    mx.async_eval(result, hidden, *(array for tapped in cache.tapped for array in tapped.arrays()))
    session.target_passes += 1
    return PendingRound(drafter, len(draft.tokens), hidden, verdict.token, seen, result, is_pipelined)


def begin_ahead(
    session: Session, options: DecodeOptions, pending: PendingRound, budget: int
) -> PendingRound | None:
    """Begin the round after `pending` before its result is read, if both are plain; else None.

    Only after a plain round is the next frontier known without the result, and a constraint has to see it on the
    host. budget: tokens left for the new round.
    """
    if pending.drafted or options.constraint or budget < 1 or _next_draft(session, options, budget).length:
        return None
    return begin_round(session, options, pending.frontier(0), PLAIN, is_pipelined=True)


def finish_round(
    session: Session, options: DecodeOptions, pending: PendingRound, ahead: PendingRound | None, budget: int
) -> RoundFacts:
    """Read a round's result, cut it behind a stop token, roll the caches back and commit.

    Raises BrokenNumbersError without rolling back: the caches are then of no more use.
    """
    accepted, target_token, *draft = _read_result(session, pending)
    if accepted == NOT_FINITE:
        raise BrokenNumbersError(
            "The model's output contains values that are not numbers (NaN), so the reply ends here. "
            "Ask again; if it happens again, verify the model's files."
        )
    tokens = (*draft[:accepted], target_token)
    end = next((count for count, token in enumerate(tokens, 1) if token in options.stop_tokens), None)
    committed = tokens[:end]
    accepted = min(accepted, len(committed))
    session.finish_reason = _finish_reason(options, is_stopped=end is not None, is_full=len(committed) == budget)

    # A round that was begun ahead of the reply's end is not needed: its row is dropped as well.
    rejected, unused = pending.drafted - accepted, 1 if ahead and session.finish_reason else 0
    session.prefix.cache.rollback(rejected + unused)
    if pending.drafter:
        pending.drafter.rollback(rejected)
    session.prefix.tokens.extend(committed)
    if options.constraint:
        options.constraint.advance(committed)
    return RoundFacts(
        token_ids=committed,
        drafted=pending.drafted,
        accepted=accepted,
        is_pipelined=pending.is_pipelined,
        context_tokens=session.prefix.cache.frontier,
        drafter=pending.drafter.name if pending.drafter else "",
    )


def _constrained(session: Session, constraint: Constraint, logits: mx.array, draft: Distribution) -> mx.array:
    """The logits, -inf for what is not allowed. While the target reads, waits for drafts that only the device
    knows."""
    mx.async_eval(logits)
    if draft.known is not None:
        return masked(logits, constraint.masks(draft.known))
    session.host_syncs += 1
    return masked(logits, constraint.masks(draft.tokens.tolist()))  # type: ignore[arg-type]


def _finish_reason(options: DecodeOptions, is_stopped: bool, is_full: bool) -> FinishReason | None:
    if is_stopped:
        return "stop"
    if is_full:
        return "length"
    return "cancelled" if options.control.is_cancelled else None


def _read_result(session: Session, pending: PendingRound) -> list[int]:
    session.host_syncs += 1
    return pending.result.tolist()  # type: ignore[return-value]


def _next_draft(session: Session, options: DecodeOptions, budget: int) -> Choice:
    """The next round's draft, limited by the tokens left and by what the drafters can propose."""
    offers = [drafter.offer(session.prefix.tokens, budget - 1) for drafter in session.drafters]
    return options.control.next_draft(offers)
