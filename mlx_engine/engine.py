"""The engine: loads a pair, then answers requests with replies, reported as events.

The only clock of the engine is here; the loop has none.
"""

from __future__ import annotations

import secrets
import time
from array import array
from collections.abc import Callable, Collection
from pathlib import Path

import mlx.core as mx
import msgspec

from mlx_engine.decode import Control, DecodeOptions, Session, generate
from mlx_engine.files.config_file import read_config
from mlx_engine.loading.claim import Claim
from mlx_engine.loading.end_tokens import end_tokens
from mlx_engine.loading.generation_config import GenerationConfig
from mlx_engine.loading.on_device import (
    bits_notice,
    chunk_range_of,
    estimates_path,
    float32_notice,
    room_bytes,
    start_length_of,
    vocabulary_notice,
    working_set_bytes,
)
from mlx_engine.loading.pair import COMPUTING_ERRORS, computing_refusal, load_pair, untap
from mlx_engine.loading.told import is_news
from mlx_engine.loading.wiring import wire_weights
from mlx_engine.micro_bench import MicroBench
from mlx_engine.network.chunk_length import ChunkLength
from mlx_engine.network.disk_cache import DiskCache, StoredChat
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.protocol import events
from mlx_engine.protocol.conversation_memory import conversation_bytes
from mlx_engine.protocol.errors import BrokenNumbersError, ModelFolderError
from mlx_engine.protocol.events import FORCED
from mlx_engine.protocol.micro_figures import MicroFigures
from mlx_engine.protocol.out_of_memory import is_from_device, is_out_of_memory, memory_refusal, quoted
from mlx_engine.request_check import RequestCheck
from mlx_engine.speculation.constraint import Constraint
from mlx_engine.speculation.drafter import Drafter
from mlx_engine.speculation.forced_drafter import ForcedDrafter
from mlx_engine.speculation.guarded import GuardedDrafter
from mlx_engine.speculation.steering import DraftPolicies, ReplyControl, Steering
from mlx_engine.text.grammar import Grammars, ReplyForm, Thought
from mlx_engine.text.model_turn import reply_key
from mlx_engine.text.prompt import RenderedPrompt
from mlx_engine.text.reply_text import Piece, ReplyDecoder
from mlx_engine.warm_up import SHORTEST_PROMPT_TOKENS, TARGET_PASSES, WarmUp

CACHED_BUFFER_BYTES = 1 << 30
"""MLX keeps freed buffers for reuse; without a limit they pile up, since verify passes change their shapes."""
CLEAR_EVERY_ROUNDS = 256
"""In a long reply freed buffers are also released on the way."""
FINISH_S = 1.5
"""How long the end of the engine waits for a chat that is being written. The client waits longer."""

MOST_KNOWN_REPLIES = 1000

Emit = Callable[[events.Event], None]


class Engine:
    """A pair in memory and its conversations. All methods belong to one thread."""

    def __init__(self, load: events.Load, emit: Emit, clock: Callable[[], float] = time.perf_counter) -> None:
        """Load and warm up; emits Loading and Ready, and a Notice where needed. Raises ModelFolderError."""
        self._emit, self._clock = emit, clock
        started_at_s = clock()
        mx.set_cache_limit(CACHED_BUFFER_BYTES)
        folder = Path(load.target)
        pair = load_pair(load, emit)
        wiring = wire_weights(working_set_bytes()) if load.is_wired else None
        self._format, self._target = pair.format, pair.target
        self._drafters, self._drafter_bits = pair.drafters, pair.drafter_bits
        self._taps = pair.taps
        self._drafter_vocabulary = pair.drafter_vocabulary
        """As in `LoadedPair`."""
        self._refusals = [load.refusal] if load.refusal else []
        self._refusals += pair.refusals
        self._settings = GenerationConfig.read(folder)
        self._end_tokens = end_tokens(read_config(folder), self._settings, self._format)
        self._settings.check(folder, self._end_tokens, self._target.facts.vocab_size)
        self._start_length = load.start_length or start_length_of(pair.target)
        self._last_save_error = ""
        self._known_replies: dict[str, array[int]] = {}
        """The latest replies of all conversations: their `reply_key` -> the tokens they were generated as, in a
        ninth of the memory of a list."""
        self._grammars: Grammars | None = None
        """Made for the first request with a grammar."""
        facts = self._target.facts
        self.check = RequestCheck(
            self._format, self._settings, facts.vocab_size, facts.context_tokens, self._known_replies
        )
        """For other threads as well."""
        self._warm_up(folder)
        names = [drafter.name for drafter in self._drafters.values()]
        self._policies = DraftPolicies(estimates_path(load, pair), self._start_length, names)
        self._schema_policies = DraftPolicies(None, self._start_length, [*names, FORCED], pipelines_plain=False)
        """For replies with a grammar: what they teach about drafts and rounds holds for no others."""
        self._chunk = ChunkLength(chunk_range_of(load, self._target))
        pair.budget.most_bytes = conversation_bytes(load.conversation_bytes, room_bytes())
        self._prefix = PrefixCache(self._target, self._chunk, pair.budget)
        chats = load.chat_cache_folder
        self._disk = DiskCache(Path(chats) if chats else None, load.chat_cache_bytes, self._target, folder)
        state = load.estimates_folder
        self._claim = Claim(Path(state) if state else None, load.name, mx.get_active_memory())
        notices = (
            pair.notice,
            wiring,
            float32_notice(load, self._target),
            vocabulary_notice(load, pair),
            self._policies.notice,
            self._claim.notice,
        )
        for notice in (*notices, *self._settings.notices):
            if notice:
                emit(events.Notice(notice))
        for once in (self._format.age_notice(), bits_notice(load, pair)):
            if once and is_news(Path(state) if state else None, once):
                emit(events.Notice(once))
        emit(self._ready(load, clock() - started_at_s))

    def count(self, text: str) -> int:
        """The number of tokens of plain text."""
        return len(self._format.encode(text))

    def measure(self, control: ReplyControl) -> MicroFigures:
        """Half a minute of measurements of the pair. Raises RequestError if it is cancelled."""
        steering = Steering(control, self._policies)
        try:
            return MicroBench(
                self._target, list(self._drafters.values()), steering, self._clock, working_set_bytes()
            ).run()
        finally:
            mx.clear_cache()

    def generate(self, request: events.Generate, control: ReplyControl) -> None:
        """Make one reply; emits Started, Prefilled, Rounds and Finished. Raises RequestError."""
        submitted_at_s = self._clock()
        stored = self._disk.find(request.chat_id)
        if stored:
            texts = [message.text for message in request.messages if message.role == "assistant"]
            for key, ids in stored.replies(texts).items():
                self._known_replies.setdefault(key, array("i", ids))
        prompt = self.check.rendered(request)
        form = ReplyForm.of(request)
        policies = self._schema_policies if form.is_constrained else self._policies
        # With a grammar no round begins before the one before it is read: none shows the baseline decode speed.
        can_measure = request.measures_baseline and not form.is_constrained
        steering = Steering(control, policies, can_measure, self._is_thinking(request))
        options = self._options(request, prompt, form, steering)
        self._forget_old_replies(_reply_keys(request))
        self._disk.begin(request.chat_id)
        try:
            newest = self._reply(request, prompt, options, policies, submitted_at_s, stored)
        except BaseException as error:
            # The caches may be out of step with their tokens.
            self._prefix.forget()
            if isinstance(error, BrokenNumbersError) and self._target.has_float16:
                raise BrokenNumbersError(
                    "The model is stored in float16, and its numbers overflowed there, so the reply ends here. "
                    f"From now on it is computed in {self._target.widen_float16()}: ask again."
                ) from None
            raise
        finally:
            mx.clear_cache()
        self._disk.keep(request.chat_id, self._prefix, self._replies_of(request, newest))
        self._save_estimates()

    def close(self) -> None:
        """Finish what is being written. No method may be called afterwards."""
        self._disk.finish(FINISH_S)

    def _reply(
        self,
        request: events.Generate,
        prompt: RenderedPrompt,
        options: DecodeOptions,
        policies: DraftPolicies,
        submitted_at_s: float,
        stored: StoredChat | None,
    ) -> str | None:
        """Returns the key that the reply is remembered by, if it is."""
        id = request.id
        drafters: list[Drafter] = list(self._drafters.values())
        if options.constraint:
            drafters.append(ForcedDrafter(options.constraint))
        session = Session(self._target, drafters, self._prefix)
        recalled_tokens = self._disk.recall(stored, self._prefix, prompt.ids)
        cached_tokens = self._prefix.resume(prompt.ids)
        mx.reset_peak_memory()
        disk_tokens = min(recalled_tokens, cached_tokens)
        self._emit(events.Started(id, len(prompt.ids), cached_tokens, disk_tokens))
        decoder = self._format.reply_decoder(prompt.thought_ids, has_tools=bool(request.tools))
        text = prompt.reply_prefix
        laps = _Laps(self._clock)

        def on_prefill(done_tokens: int) -> None:
            self._chunk.observe(laps.next_s())
            self._emit(events.Prefilled(id, done_tokens, len(prompt.ids)))
            laps.restart()

        for done in generate(session, options, on_prefill):
            round_s = laps.next_s()
            self._observe(policies, done, round_s, session)
            drafted, rest = _texts(done, session, decoder)
            text += drafted.text + rest.text
            self._emit(_round(id, done, drafted, rest, round_s, laps.at_s - submitted_at_s))
        held_back = decoder.finish(is_cut=session.finish_reason != "stop")
        key = self._remember_reply(text + held_back.text, prompt.reply_prefix_ids, decoder)
        self._emit(_finished(id, held_back, session, decoder.thinking_tokens))
        return key

    def _observe(self, policies: DraftPolicies, done: events.RoundFacts, round_s: float, session: Session) -> None:
        """Every round passes here, the last one too: drafts behind a stop token are wasted, which is why short
        replies do best with short drafts."""
        policies.observe(done, round_s)
        if session.target_passes % CLEAR_EVERY_ROUNDS == 0:
            mx.clear_cache()

    def _remember_reply(self, text: str, prefix_ids: list[int], decoder: ReplyDecoder) -> str | None:
        if not (text or decoder.calls) or not decoder.has_plain_answer:
            return None
        key = reply_key(text, decoder.calls)
        self._known_replies[key] = array("i", prefix_ids + decoder.answer_ids)
        return key

    def _forget_old_replies(self, keys: Collection[str]) -> None:
        """keys: of the replies in the conversation that goes on, which are used now."""
        known = self._known_replies
        for key in [key for key in keys if key in known]:
            known[key] = known.pop(key)  # the latest use comes last
        for key in list(known)[:-MOST_KNOWN_REPLIES]:
            del known[key]

    def _replies_of(self, request: events.Generate, newest: str | None) -> dict[str, list[int]]:
        """The known replies of the request's conversation. newest: the key of its answer."""
        known = self._known_replies
        keys = [*_reply_keys(request), *([newest] if newest else [])]
        return {key: known[key].tolist() for key in keys if key in known}

    def _save_estimates(self) -> None:
        try:
            self._policies.save()
        except OSError as error:
            why = f"The estimates for automatic drafting cannot be saved: {error.strerror or error}."
            if why != self._last_save_error:
                self._last_save_error = why
                self._emit(events.Notice(f"{why} The next run measures them again."))

    def _options(
        self, request: events.Generate, prompt: RenderedPrompt, form: ReplyForm, control: Control
    ) -> DecodeOptions:
        max_tokens = self.check.room(prompt, request.max_tokens)
        control.next_draft(())  # refuses a setting out of range before anything is read
        return DecodeOptions(
            sampler=self._settings.sampler(
                request.sampling, self._target.facts.vocab_size, seed=secrets.randbits(32)
            ),
            stop_tokens=self._end_tokens,
            max_tokens=max_tokens,
            control=control,
            branch_points=prompt.branch_points,
            constraint=self._constraint(request, prompt, form) if form.is_constrained else None,
        )

    def _is_thinking(self, request: events.Generate) -> bool:
        return request.is_thinking and self._format.can_think

    def _constraint(self, request: events.Generate, prompt: RenderedPrompt, form: ReplyForm) -> Constraint:
        if self._grammars is None:
            self._grammars = self._format.grammars(self._end_tokens, self._target.facts.vocab_size)
        thought: Thought = "begun" if prompt.thought_ids else "possible" if self._is_thinking(request) else "none"
        grammar = self._grammars.grammar(form, thought)
        grammar.resume(prompt.reply_prefix_ids)
        return grammar

    def _ready(self, load: events.Load, load_s: float) -> events.Ready:
        return events.Ready(
            target=load.name,
            drafters={drafter.name: load.drafter_name(source) for source, drafter in self._drafters.items()},
            start_length=self._start_length,
            precision=self._target.dtype_name,
            context_tokens=self._target.facts.context_tokens,
            memory_bytes=mx.get_active_memory(),
            working_set_bytes=working_set_bytes(),
            load_s=load_s,
            is_compiled=self._target.is_compiled,
            float32_bytes=self._target.added_bytes,
            prefill_chunk=self._chunk.tokens,
            has_experts=self._target.facts.is_moe,
            drafter_bits=self._drafter_bits,
            drafter_vocabulary=self._drafter_vocabulary,
            refusal=" ".join(self._refusals) or None,
            can_think=self._format.can_think,
        )

    def _warm_up(self, folder: Path) -> None:
        """Compile what the first reply would wait for, refuse a target that cannot be used, and leave out such
        drafters."""
        has_shapes = mx.metal.is_available() or self._target.is_compiled
        ids = self._warm_up_prompt(folder)
        # What is neither compiled nor run by kernels for a number of rows is warm after any pass.
        ids = ids if has_shapes else ids[-SHORTEST_PROMPT_TOKENS:]
        passes = TARGET_PASSES + len(self._drafters)
        sampler = self._settings.sampler(events.SamplingOptions(), self._target.facts.vocab_size, seed=0)
        warm_up = WarmUp(
            self._target,
            ids,
            sampler,
            lambda pass_: self._emit(events.Loading(f"warming up, {pass_} of {passes}")),
        )
        try:
            warm_up.run_target()
        except BrokenNumbersError:
            raise ModelFolderError(
                f"{folder}: its weights give no usable numbers (NaN). Pull the model again."
            ) from None
        except COMPUTING_ERRORS as error:
            if is_from_device(error):
                raise  # nothing is wrong with the folder; the worker says what to do
            raise ModelFolderError(
                f"{folder}: the network in its config.json cannot be run ({str(error)[:200]}). "
                "Pull the model again, or use a smaller variant."
            ) from None
        for name in list(self._drafters):
            self._warm_up_drafter(warm_up, name, self._start_length if has_shapes else 1)

    def _warm_up_prompt(self, folder: Path) -> list[int]:
        ids = self._format.render([events.Message("user", "Hello")]).ids
        context_tokens = self._target.facts.context_tokens
        if not ids:
            raise ModelFolderError(
                f"{folder}: its chat template makes nothing of a message: it is empty, or renders no text. "
                "Pull the model again."
            )
        if context_tokens <= len(ids):
            raise ModelFolderError(
                f"{folder}: its context of {context_tokens} tokens is too small: the chat template alone takes "
                f"{len(ids)}. Check max_position_embeddings in config.json."
            )
        return ids

    def _warm_up_drafter(self, warm_up: WarmUp, name: str, draft_length: int) -> None:
        """A drafter that cannot be used is left out."""
        drafter, refusal = self._drafters[name], None
        try:
            if not warm_up.run_drafter(drafter, draft_length):
                refusal = (
                    f"The drafter {name} gives no usable numbers (NaN). Pull it again, or use --drafter none."
                )
        except (*COMPUTING_ERRORS, MemoryError) as error:
            refusal = computing_refusal(name, error)
        if refusal is None:
            self._drafters[name] = GuardedDrafter(drafter, _notice_of_failure(self._emit, name))
        else:
            self._refusals.append(refusal)
            del drafter, self._drafters[name]
            untap(self._target, self._taps[name])
            mx.clear_cache()


def _reply_keys(request: events.Generate) -> list[str]:
    """Of the replies in a request's conversation, oldest first."""
    return [reply_key(message.text, message.calls) for message in request.messages if message.role == "assistant"]


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
        calls=drafted.calls + rest.calls,
        refused_calls=drafted.refused_calls + rest.refused_calls,
        round_s=round_s,
        elapsed_s=elapsed_s,
        memory_bytes=mx.get_active_memory(),
    )


def _finished(id: int, held_back: Piece, session: Session, thinking_tokens: int) -> events.Finished:
    assert session.finish_reason
    return events.Finished(
        id=id,
        reason=session.finish_reason,
        text=held_back.text,
        thinking=held_back.thinking,
        target_passes=session.target_passes,
        host_syncs=session.host_syncs,
        peak_memory_bytes=mx.get_peak_memory(),
        calls=held_back.calls,
        refused_calls=held_back.refused_calls,
        thinking_tokens=thinking_tokens,
    )


def _notice_of_failure(emit: Emit, name: str) -> Callable[[Exception], None]:
    """Reports a drafter's failure. No method of the engine: the drafter would then keep its engine, and both pairs
    would be in memory while the next one is loaded."""

    def report(error: Exception) -> None:
        why = f"The drafter {name} failed ({quoted(error)}). Load the model again to retry."
        emit(events.Notice(memory_refusal(name, error) if is_out_of_memory(error) else why))

    return report
