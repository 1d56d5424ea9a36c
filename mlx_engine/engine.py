"""One loaded pair: load, then replies as events. Runs in the child process, or wherever MLX may live.

The only clock of the engine is here; the loop itself has none.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from mlx_engine.decode import Committed, Plan, Session, generate, prefill
from mlx_engine.loading.claim import Claim
from mlx_engine.loading.generation_config import GenerationConfig
from mlx_engine.loading.pair import COMPUTING_ERRORS, does_not_compute, load_pair
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import ContextOverflowError, ModelFolderError, RequestError
from mlx_engine.speculation.draft_length import RoundFacts
from mlx_engine.speculation.drafters import Drafter, GuardedDrafter
from mlx_engine.speculation.sampling import Sampler
from mlx_engine.speculation.steering import DraftLengths, ReplyControl, Steering, estimates_file, start_length
from mlx_engine.text.prompt import Prompt
from mlx_engine.text.reply_text import Piece, ReplyText

CACHED_BUFFER_BYTES = 1 << 30
"""MLX keeps freed buffers for reuse; the changing shapes of verify passes would let them pile up."""
CLEAR_EVERY_ROUNDS = 256
"""In a long reply the freed buffers are given back on the way, too."""
WARM_UP_TOKENS = 4

Emit = Callable[[events.Event], None]


class Engine:
    """A pair in memory, and the conversation it read last. All methods belong to one thread."""

    def __init__(self, load: events.Load, emit: Emit, clock: Callable[[], float] = time.perf_counter) -> None:
        """Load and warm up; emits Loading and Ready, or a Notice on the way. Raises ModelFolderError."""
        self._emit, self._clock = emit, clock
        started_at_s = clock()
        mx.set_cache_limit(CACHED_BUFFER_BYTES)
        folder = Path(load.target)
        pair = load_pair(load, emit)
        if load.is_wired:
            _wire_weights()
        self._format, self._target = pair.format, pair.target
        self._drafter: Drafter | None = pair.drafter
        self._refusal = load.refusal or pair.refusal
        self._settings = GenerationConfig.read(folder)
        self._start_length = load.start_length or start_length(str(mx.device_info().get("architecture")))
        self._lengths = DraftLengths(_estimates_path(load, pair.target.is_compiled), self._start_length)
        self._told_of_estimates = ""
        self._said: dict[str, list[int]] = {}
        """Tokens of the replies in the last conversation, by their text."""
        emit(events.Loading("warming up"))
        try:
            self._warm_up(folder)
        except COMPUTING_ERRORS as error:
            raise ModelFolderError(
                f"{folder}: the network that its config.json describes does not compute ({str(error)[:200]}). "
                "Fetch the folder again, or use a smaller variant."
            ) from None
        self._warm_up_drafter(load.drafter)
        self._prefix = PrefixCache(self._target)
        home = load.estimates_folder
        self._claim = Claim(Path(home) if home else None, load.names[0], mx.get_active_memory())
        for notice in (self._lengths.notice, self._claim.notice):
            if notice:
                emit(events.Notice(notice))
        emit(self._ready(load, clock() - started_at_s))

    def count(self, text: str) -> int:
        """The tokens of plain text."""
        return len(self._format.encode(text))

    def generate(self, request: events.Generate, control: ReplyControl) -> None:
        """Make one reply; emits Started, Prefilled, Rounds and Finished. Raises RequestError."""
        submitted_at_s = self._clock()
        prompt = self._format.render(request.messages, request.is_thinking, self._said)
        plan = self._plan(request, prompt, Steering(control, self._lengths, request.measures_plain))
        self._forget_replies_but(request.messages)
        last = request.messages[-1]
        begun = last.text if last.role == "assistant" else ""
        try:
            self._reply(request.id, prompt, begun, plan, submitted_at_s)
        except BaseException:
            # Nobody knows what the caches hold now.
            self._prefix = PrefixCache(self._target)
            raise
        finally:
            mx.clear_cache()
        self._keep_estimates()

    def _reply(self, id: int, prompt: Prompt, begun: str, plan: Plan, submitted_at_s: float) -> None:
        session = Session(self._target, self._drafter, self._prefix)
        cached_tokens = self._prefix.resume(prompt.ids)
        mx.reset_peak_memory()
        self._emit(events.Started(id, len(prompt.ids), cached_tokens))

        def on_prefill(done_tokens: int) -> None:
            self._emit(events.Prefilled(id, done_tokens, len(prompt.ids)))
            self._committed_at_s = self._clock()

        self._committed_at_s = self._clock()
        reply = self._format.reply_text()
        answer, answer_ids = begun, prompt.begun
        for done in generate(session, plan, on_prefill):
            round_s = self._lap_s()
            self._observe(done, round_s, session)
            drafted, own = _said(done, reply)
            said = Piece(drafted.text + own.text, drafted.thinking + own.thinking)
            answer += said.text
            elapsed_s = self._committed_at_s - submitted_at_s
            self._emit(self._round(id, done, said, len(drafted.text), round_s, elapsed_s))
            if done.reason:
                rest = reply.finish()
                self._remember_reply(answer + rest.text, answer_ids, reply)
                self._emit(self._finished(id, done.reason, rest, session))

    def _drafter_failed(self, error: Exception) -> None:
        self._emit(
            events.Notice(
                f"The drafter failed ({str(error)[:200] or type(error).__name__}). Replies go on without it; "
                "load the model again to try it once more."
            )
        )

    def _observe(self, done: Committed, round_s: float, session: Session) -> None:
        # The last round too: drafts behind a stop bring nothing, and short replies do best with short drafts.
        context_tokens = self._prefix.cache.frontier
        self._lengths.observe(RoundFacts(done.drafted, done.accepted, round_s, done.is_pipelined, context_tokens))
        if session.target_passes % CLEAR_EVERY_ROUNDS == 0:
            mx.clear_cache()

    def _remember_reply(self, text: str, begun: list[int], reply: ReplyText) -> None:
        if text and reply.has_plain_answer:
            self._said[text] = begun + reply.answer_ids

    def _forget_replies_but(self, messages: tuple[events.Message, ...]) -> None:
        texts = {message.text for message in messages if message.role == "assistant"}
        self._said = {text: ids for text, ids in self._said.items() if text in texts}

    def _keep_estimates(self) -> None:
        try:
            self._lengths.save()
        except OSError as error:
            words = f"What was learned about draft lengths cannot be kept: {error.strerror or error}."
            if words != self._told_of_estimates:
                self._told_of_estimates = words
                self._emit(events.Notice(f"{words} The next run learns it anew."))

    def _ready(self, load: events.Load, load_s: float) -> events.Ready:
        target, drafter = load.names
        return events.Ready(
            target=target,
            drafter=drafter if self._drafter else None,
            start_length=self._start_length,
            precision=self._target.dtype_name,
            context_tokens=self._target.facts.context_tokens,
            memory_bytes=mx.get_active_memory(),
            working_set_bytes=_working_set_bytes(),
            load_s=load_s,
            is_compiled=self._target.is_compiled,
            refusal=self._refusal,
        )

    def _round(
        self, id: int, done: Committed, said: Piece, drafted_characters: int, round_s: float, elapsed_s: float
    ) -> events.Round:
        return events.Round(
            id=id,
            text=said.text,
            thinking=said.thinking,
            token_ids=done.token_ids,
            drafted=done.drafted,
            accepted=done.accepted,
            round_s=round_s,
            elapsed_s=elapsed_s,
            is_pipelined=done.is_pipelined,
            context_tokens=self._prefix.cache.frontier,
            memory_bytes=mx.get_active_memory(),
            drafted_characters=drafted_characters,
        )

    def _finished(self, id: int, reason: events.FinishReason, rest: Piece, session: Session) -> events.Finished:
        return events.Finished(
            id=id,
            reason=reason,
            text=rest.text,
            thinking=rest.thinking,
            target_passes=session.target_passes,
            host_syncs=session.host_syncs,
            peak_memory_bytes=mx.get_peak_memory(),
        )

    def _lap_s(self) -> float:
        """Seconds since the commit before."""
        before, self._committed_at_s = self._committed_at_s, self._clock()
        return self._committed_at_s - before

    def _plan(self, request: events.Generate, prompt: Prompt, steering: Steering) -> Plan:
        room = self._target.facts.context_tokens - len(prompt.ids)
        if room < 1:
            raise ContextOverflowError(
                f"The conversation is {len(prompt.ids)} tokens long and the model's context holds "
                f"{self._target.facts.context_tokens}. Shorten the message or start a new chat."
            )
        if request.max_tokens is not None and request.max_tokens < 1:
            raise RequestError(f"A limit of {request.max_tokens} tokens is out of range: use 1 or more.")
        steering.next_length()  # refuses a setting out of range before anything is begun
        return Plan(
            sampler=self._settings.sampler(
                request.sampling, self._target.facts.vocab_size, seed=secrets.randbits(32)
            ),
            stop_tokens=self._format.stop_tokens | self._settings.eos_tokens,
            max_tokens=min(room, request.max_tokens or room),
            control=steering,
            marks=prompt.marks,
        )

    def _warm_up(self, folder: Path) -> None:
        """Compile what the first reply would wait for, and find weights that give no numbers."""
        prompt = self._format.render([events.Message("user", "Hello")])
        room = self._target.facts.context_tokens
        if room <= len(prompt.ids):
            raise ModelFolderError(
                f"{folder}: its context of {room} tokens has no room for a reply: the chat template alone takes "
                f"{len(prompt.ids)}. Check max_position_embeddings in config.json."
            )
        hidden = self._target.forward(mx.array([prompt.ids]), self._target.new_cache())
        if not mx.all(mx.isfinite(self._target.logits(hidden))).item():
            raise ModelFolderError(f"{folder}: its weights give no usable numbers (NaN). Fetch the folder again.")
        self._rehearse(prompt, 0)

    def _warm_up_drafter(self, name: str | None) -> None:
        """The same with drafts. A drafter that is of no use is left out."""
        if self._drafter is None:
            return
        prompt = self._format.render([events.Message("user", "Hello")])
        try:
            self._rehearse(prompt, self._start_length)
            has_numbers = self._drafts_numbers(prompt)
        except COMPUTING_ERRORS as error:
            self._refusal = does_not_compute(name, error)
        else:
            if not has_numbers:
                self._refusal = (
                    f"The drafter {name} gives no usable numbers (NaN). "
                    "Fetch the folder again, or use --drafter none."
                )
        self._drafter = None if self._refusal else GuardedDrafter(self._drafter, self._drafter_failed)

    def _rehearse(self, prompt: Prompt, draft_length: int) -> None:
        request = events.Generate(0, (), max_tokens=WARM_UP_TOKENS)
        plan = self._plan(request, prompt, Steering(ReplyControl(draft_length), self._lengths))
        prefix = PrefixCache(self._target)
        prefix.resume(prompt.ids)
        list(generate(Session(self._target, self._drafter if draft_length else None, prefix), plan))

    def _drafts_numbers(self, prompt: Prompt) -> bool:
        """Whether the drafter's first token is drawn from a distribution."""
        drafter, prefix = self._drafter, PrefixCache(self._target)
        assert drafter
        prefix.resume(prompt.ids)
        sampler = Sampler(temperature=1)
        plan = Plan(sampler, frozenset(), 1, Steering(ReplyControl(1), self._lengths))
        frontier = prefill(Session(self._target, drafter, prefix), plan, lambda done_tokens: None)
        assert frontier
        if drafter.reach(prefix.tokens, 1) == 0:
            return True
        drawn = drafter.propose(prefix.tokens, frontier, prefix.cache, 1, sampler)
        drafter.rollback(1)
        return drawn.probs is None or bool(mx.all(mx.isfinite(drawn.probs)).item())


def _said(done: Committed, reply: ReplyText) -> tuple[Piece, Piece]:
    """What the drafted tokens of a round add to the reply, and what the target's own token adds."""
    ids = done.token_ids[:-1] if done.reason == "stop" else done.token_ids
    return reply.add(ids[: done.accepted]), reply.add(ids[done.accepted :])


def _wire_weights() -> None:
    """What is in memory now stays there; what conversations add does not count."""
    if mx.metal.is_available():
        mx.set_wired_limit(min(mx.get_active_memory(), _working_set_bytes() or 0))


def _working_set_bytes() -> int | None:
    size = mx.device_info().get("max_recommended_working_set_size")
    return int(size) if size else None


def _estimates_path(load: events.Load, is_compiled: bool) -> Path | None:
    if load.estimates_folder is None or load.drafter is None:
        return None
    device = f"{mx.device_info().get('device_name')}{' compiled' if is_compiled else ''}"
    return estimates_file(
        Path(load.estimates_folder), Path(load.target), Path(load.drafter), load.drafter_bits, device
    )
