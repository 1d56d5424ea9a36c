"""The engine: loads a pair, then answers requests with replies, reported as events.

The only clock of the engine is here; the loop has none.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import msgspec

from mlx_engine.decode import DecodeOptions, Session, generate, prefill
from mlx_engine.loading.claim import Claim
from mlx_engine.loading.generation_config import GenerationConfig
from mlx_engine.loading.pair import COMPUTING_ERRORS, computing_refusal, load_pair
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import ContextOverflowError, ModelFolderError, RequestError
from mlx_engine.speculation.drafter import Drafter
from mlx_engine.speculation.guarded import GuardedDrafter
from mlx_engine.speculation.sampling import Sampler
from mlx_engine.speculation.steering import DraftLengths, ReplyControl, Steering, estimates_file, start_length
from mlx_engine.text.prompt import RenderedPrompt
from mlx_engine.text.reply_text import Piece, ReplyDecoder

CACHED_BUFFER_BYTES = 1 << 30
"""MLX keeps freed buffers for reuse; without a limit they pile up, since verify passes change their shapes."""
CLEAR_EVERY_ROUNDS = 256
"""In a long reply freed buffers are also released on the way."""
WARM_UP_TOKENS = 4

Emit = Callable[[events.Event], None]


class Engine:
    """A pair in memory and its latest conversation. All methods belong to one thread."""

    def __init__(self, load: events.Load, emit: Emit, clock: Callable[[], float] = time.perf_counter) -> None:
        """Load and warm up; emits Loading and Ready, and a Notice where needed. Raises ModelFolderError."""
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
        self._last_save_error = ""
        self._known_replies: dict[str, list[int]] = {}
        """Replies in the latest conversation: their text -> the tokens they were generated as."""
        emit(events.Loading("warming up"))
        self._warm_up(folder)
        self._warm_up_drafter(load.drafter)
        self._prefix = PrefixCache(self._target)
        state = load.estimates_folder
        self._claim = Claim(Path(state) if state else None, load.names[0], mx.get_active_memory())
        for notice in (self._lengths.notice, self._claim.notice):
            if notice:
                emit(events.Notice(notice))
        emit(self._ready(load, clock() - started_at_s))

    def count(self, text: str) -> int:
        """The number of tokens of plain text."""
        return len(self._format.encode(text))

    def generate(self, request: events.Generate, control: ReplyControl) -> None:
        """Make one reply; emits Started, Prefilled, Rounds and Finished. Raises RequestError."""
        submitted_at_s = self._clock()
        prompt = self._format.render(request.messages, request.is_thinking, self._known_replies)
        options = self._options(request, prompt, Steering(control, self._lengths, request.measures_baseline))
        self._forget_other_replies(request.messages)
        try:
            self._reply(request.id, prompt, options, submitted_at_s)
        except BaseException:
            # The caches may be out of step with their tokens.
            self._prefix = PrefixCache(self._target)
            raise
        finally:
            mx.clear_cache()
        self._save_estimates()

    def _reply(self, id: int, prompt: RenderedPrompt, options: DecodeOptions, submitted_at_s: float) -> None:
        session = Session(self._target, self._drafter, self._prefix)
        cached_tokens = self._prefix.resume(prompt.ids)
        mx.reset_peak_memory()
        self._emit(events.Started(id, len(prompt.ids), cached_tokens))
        decoder = self._format.reply_decoder()
        text = prompt.reply_prefix
        laps = _Laps(self._clock)

        def on_prefill(done_tokens: int) -> None:
            self._emit(events.Prefilled(id, done_tokens, len(prompt.ids)))
            laps.restart()

        for done in generate(session, options, on_prefill):
            round_s = laps.next_s()
            self._observe(done, round_s, session)
            drafted, rest = _texts(done, session, decoder)
            text += drafted.text + rest.text
            self._emit(_round(id, done, drafted, rest, round_s, laps.at_s - submitted_at_s))
        held_back = decoder.finish()
        self._remember_reply(text + held_back.text, prompt.reply_prefix_ids, decoder)
        self._emit(_finished(id, held_back, session))

    def _observe(self, done: events.RoundFacts, round_s: float, session: Session) -> None:
        """Every round passes here, the last one too: drafts behind a stop token are wasted, which is why short
        replies do best with short drafts."""
        self._lengths.observe(done, round_s)
        if session.target_passes % CLEAR_EVERY_ROUNDS == 0:
            mx.clear_cache()

    def _remember_reply(self, text: str, prefix_ids: list[int], decoder: ReplyDecoder) -> None:
        if text and decoder.has_plain_answer:
            self._known_replies[text] = prefix_ids + decoder.answer_ids

    def _forget_other_replies(self, messages: tuple[events.Message, ...]) -> None:
        texts = {message.text for message in messages if message.role == "assistant"}
        self._known_replies = {text: ids for text, ids in self._known_replies.items() if text in texts}

    def _save_estimates(self) -> None:
        try:
            self._lengths.save()
        except OSError as error:
            why = f"The estimates for the automatic draft length cannot be saved: {error.strerror or error}."
            if why != self._last_save_error:
                self._last_save_error = why
                self._emit(events.Notice(f"{why} The next run measures them again."))

    def _drafter_failed(self, error: Exception) -> None:
        self._emit(
            events.Notice(
                f"The drafter failed ({str(error)[:200] or type(error).__name__}). Replies go on without it. "
                "Load the model again to retry."
            )
        )

    def _options(self, request: events.Generate, prompt: RenderedPrompt, steering: Steering) -> DecodeOptions:
        context_tokens = self._target.facts.context_tokens
        room = context_tokens - len(prompt.ids)
        if room < 1:
            raise ContextOverflowError(
                f"The conversation is {len(prompt.ids)} tokens long, but the model's context is "
                f"{context_tokens} tokens. Shorten the message or start a new chat."
            )
        if request.max_tokens is not None and request.max_tokens < 1:
            raise RequestError(f"A limit of {request.max_tokens} tokens is out of range: use 1 or more.")
        steering.next_length()  # refuses a setting out of range before anything is read
        return DecodeOptions(
            sampler=self._settings.sampler(
                request.sampling, self._target.facts.vocab_size, seed=secrets.randbits(32)
            ),
            stop_tokens=self._format.stop_tokens | self._settings.eos_tokens,
            max_tokens=min(room, request.max_tokens or room),
            control=steering,
            branch_points=prompt.branch_points,
        )

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
            can_think=self._format.can_think,
        )

    def _warm_up(self, folder: Path) -> None:
        """Compile what the first reply would wait for, and refuse a target that cannot be used."""
        try:
            self._check_target(folder)
        except COMPUTING_ERRORS as error:
            raise ModelFolderError(
                f"{folder}: the network in its config.json cannot be run ({str(error)[:200]}). "
                "Pull the model again, or use a smaller variant."
            ) from None

    def _check_target(self, folder: Path) -> None:
        prompt = self._format.render([events.Message("user", "Hello")])
        context_tokens = self._target.facts.context_tokens
        if not prompt.ids:
            raise ModelFolderError(
                f"{folder}: its chat template makes nothing of a message: it is empty, or renders no text. "
                "Pull the model again."
            )
        if context_tokens <= len(prompt.ids):
            raise ModelFolderError(
                f"{folder}: its context of {context_tokens} tokens is too small: the chat template alone takes "
                f"{len(prompt.ids)}. Check max_position_embeddings in config.json."
            )
        hidden = self._target.forward(mx.array([prompt.ids]), self._target.new_cache())
        if not mx.all(mx.isfinite(self._target.logits(hidden))).item():
            raise ModelFolderError(f"{folder}: its weights give no usable numbers (NaN). Pull the model again.")
        self._rehearse(prompt, 0)

    def _warm_up_drafter(self, name: str | None) -> None:
        """The same with drafts. A drafter that cannot be used is left out."""
        if self._drafter is None:
            return
        prompt = self._format.render([events.Message("user", "Hello")])
        try:
            self._rehearse(prompt, self._start_length)
            is_finite = self._drafts_finite_numbers(prompt)
        except COMPUTING_ERRORS as error:
            self._refusal = computing_refusal(name, error)
        else:
            if not is_finite:
                self._refusal = (
                    f"The drafter {name} gives no usable numbers (NaN). Pull it again, or use --drafter none."
                )
        self._drafter = None if self._refusal else GuardedDrafter(self._drafter, self._drafter_failed)

    def _rehearse(self, prompt: RenderedPrompt, draft_length: int) -> None:
        request = events.Generate(0, (), max_tokens=WARM_UP_TOKENS)
        options = self._options(request, prompt, Steering(ReplyControl(draft_length), self._lengths))
        prefix = PrefixCache(self._target)
        prefix.resume(prompt.ids)
        list(generate(Session(self._target, self._drafter if draft_length else None, prefix), options))

    def _drafts_finite_numbers(self, prompt: RenderedPrompt) -> bool:
        """Whether the drafter's first token is drawn from finite probabilities."""
        drafter, prefix = self._drafter, PrefixCache(self._target)
        assert drafter
        prefix.resume(prompt.ids)
        sampler = Sampler(temperature=1)
        options = DecodeOptions(sampler, frozenset(), 1, Steering(ReplyControl(1), self._lengths))
        frontier = prefill(Session(self._target, drafter, prefix), options, lambda done_tokens: None)
        assert frontier
        if drafter.available_tokens(prefix.tokens, 1) == 0:
            return True
        draft = drafter.propose(prefix.tokens, frontier, prefix.cache, 1, sampler)
        drafter.rollback(1)
        return draft.probs is None or bool(mx.all(mx.isfinite(draft.probs)).item())


class _Laps:
    """A stopwatch for the times from commit to commit."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.at_s = clock()

    def restart(self) -> None:
        self.at_s = self._clock()

    def next_s(self) -> float:
        """Seconds since the last call or restart."""
        before_s, self.at_s = self.at_s, self._clock()
        return self.at_s - before_s


def _texts(done: events.RoundFacts, session: Session, decoder: ReplyDecoder) -> tuple[Piece, Piece]:
    """The text that a round's drafted tokens add, and the text that the target's own token adds."""
    ids = done.token_ids[:-1] if session.finish_reason == "stop" else done.token_ids
    return decoder.add(ids[: done.accepted]), decoder.add(ids[done.accepted :])


def _round(
    id: int, done: events.RoundFacts, drafted: Piece, rest: Piece, round_s: float, elapsed_s: float
) -> events.Round:
    return events.Round(
        **msgspec.structs.asdict(done),
        id=id,
        text=drafted.text + rest.text,
        thinking=drafted.thinking + rest.thinking,
        drafted_characters=len(drafted.text),
        round_s=round_s,
        elapsed_s=elapsed_s,
        memory_bytes=mx.get_active_memory(),
    )


def _finished(id: int, held_back: Piece, session: Session) -> events.Finished:
    assert session.finish_reason
    return events.Finished(
        id=id,
        reason=session.finish_reason,
        text=held_back.text,
        thinking=held_back.thinking,
        target_passes=session.target_passes,
        host_syncs=session.host_syncs,
        peak_memory_bytes=mx.get_peak_memory(),
    )


def _wire_weights() -> None:
    """Keep what is in memory now, the weights, from being paged out; later conversations are not covered."""
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
