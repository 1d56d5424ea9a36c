"""One loaded pair: load, then replies as events. Runs in the child process, or wherever MLX may live.

The only clock of the engine is here; the loop itself has none.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import mlx.core as mx
import msgspec

from mlx_engine import events
from mlx_engine.assistant import load_assistant
from mlx_engine.checkpoint import read_config, read_json
from mlx_engine.decode import Committed, Plan, Session, generate
from mlx_engine.draft_length import FixedLength
from mlx_engine.drafters import AssistantDrafter, Drafter, check_pair
from mlx_engine.errors import ContextOverflowError, ModelFolderError, RequestError
from mlx_engine.prompt import ChatFormat
from mlx_engine.sampling import Randomness, Sampler, suppressed_within
from mlx_engine.target import load_target

CACHED_BUFFER_BYTES = 1 << 30
"""MLX keeps freed buffers for reuse; the changing shapes of verify passes would let them pile up."""
WARM_UP_TOKENS = 4

Emit = Callable[[events.Event], None]
T = TypeVar("T")


class ReplyControl:
    """What may be changed from another thread while a reply is being made."""

    def __init__(self, draft_length: int) -> None:
        self.draft_length = FixedLength(draft_length)
        self.is_cancelled = False


class Engine:
    """A pair in memory. All methods belong to one thread."""

    def __init__(self, load: events.Load, emit: Emit, clock: Callable[[], float] = time.perf_counter) -> None:
        """Load and warm up; emits Loading and Ready. Raises ModelFolderError."""
        self._emit, self._clock = emit, clock
        started = clock()
        mx.set_cache_limit(CACHED_BUFFER_BYTES)
        folder = Path(load.target)
        emit(events.Loading(f"reading {folder.name}"))
        read_config(folder)  # a folder that is no model is refused as that, not for want of a tokenizer
        self._format = ChatFormat(folder)
        self._settings = GenerationConfig.read(folder)
        self._target = load_target(folder)
        self._check_vocabulary(folder)
        self._drafter = self._load_drafter(load)
        self._session = self._new_session()
        emit(events.Loading("warming up"))
        self._warm_up(folder)
        emit(
            events.Ready(
                target=folder.name,
                drafter=Path(load.drafter).name if load.drafter else None,
                precision=self._target.dtype_name,
                context_tokens=self._target.facts.context_tokens,
                memory_bytes=mx.get_active_memory(),
                load_s=clock() - started,
            )
        )

    def generate(self, request: events.Generate, control: ReplyControl) -> None:
        """Make one reply; emits Started, Prefilled, Rounds and Finished. Raises RequestError."""
        submitted_at_s = self._clock()
        prompt = self._format.render(request.messages)
        plan = self._plan(request, len(prompt), control)
        self._session = session = self._new_session()
        mx.reset_peak_memory()
        self._emit(events.Started(request.id, len(prompt), cached_tokens=0))

        def on_prefill(done_tokens: int) -> None:
            self._emit(events.Prefilled(request.id, done_tokens, len(prompt)))
            self._committed_at_s = self._clock()

        self._committed_at_s = self._clock()
        text = self._format.stream()
        for done in generate(session, prompt, plan, on_prefill):
            round_s = self._lap_s()
            control.draft_length.observe(done.drafted, len(done.token_ids), round_s)
            elapsed_s = self._committed_at_s - submitted_at_s
            said = done.token_ids[:-1] if done.reason == "stop" else done.token_ids
            self._emit(self._round(request.id, done, text.add(said), round_s, elapsed_s))
            if done.reason:
                self._emit(self._finished(request.id, done.reason, text.finish()))
        mx.clear_cache()

    def _round(self, id: int, done: Committed, text: str, round_s: float, elapsed_s: float) -> events.Round:
        return events.Round(
            id=id,
            text=text,
            token_ids=done.token_ids,
            drafted=done.drafted,
            accepted=done.accepted,
            round_s=round_s,
            elapsed_s=elapsed_s,
            is_pipelined=done.is_pipelined,
            context_tokens=self._session.cache.frontier,
            memory_bytes=mx.get_active_memory(),
        )

    def _finished(self, id: int, reason: events.FinishReason, text: str) -> events.Finished:
        return events.Finished(
            id=id,
            reason=reason,
            text=text,
            target_passes=self._session.target_passes,
            host_syncs=self._session.host_syncs,
            peak_memory_bytes=mx.get_peak_memory(),
        )

    def _lap_s(self) -> float:
        """Seconds since the commit before."""
        before, self._committed_at_s = self._committed_at_s, self._clock()
        return self._committed_at_s - before

    def _plan(self, request: events.Generate, prompt_tokens: int, control: ReplyControl) -> Plan:
        room = self._target.facts.context_tokens - prompt_tokens
        if room < 1:
            raise ContextOverflowError(
                f"The conversation is {prompt_tokens} tokens long and the model's context holds "
                f"{self._target.facts.context_tokens}. Shorten the message or start a new chat."
            )
        if request.max_tokens is not None and request.max_tokens < 1:
            raise RequestError(f"A limit of {request.max_tokens} tokens is out of range: use 1 or more.")
        seed = request.sampling.seed
        return Plan(
            sampler=self._sampler(request.sampling),
            randomness=Randomness(secrets.randbits(32) if seed is None else seed),
            stop_tokens=self._format.stop_tokens | self._settings.eos_tokens,
            max_tokens=min(room, request.max_tokens or room),
            control=control,
        )

    def _sampler(self, options: events.SamplingOptions) -> Sampler:
        folder = self._settings
        return Sampler(
            temperature=_chosen(options.temperature, folder.default_temperature),
            top_k=_chosen(options.top_k, folder.top_k or 0),
            top_p=_chosen(options.top_p, folder.top_p or 1.0),
            suppressed=suppressed_within(folder.suppress_tokens or (), self._target.facts.vocab_size),
        )

    def _load_drafter(self, load: events.Load) -> Drafter | None:
        if load.drafter is None:
            return None
        folder = Path(load.drafter)
        self._emit(events.Loading(f"reading {folder.name}"))
        assistant = load_assistant(folder)
        check_pair(assistant, self._target.facts, (str(folder), load.target))
        return AssistantDrafter(assistant, self._target)

    def _new_session(self) -> Session:
        return Session(self._target, self._drafter, self._target.new_cache())

    def _check_vocabulary(self, folder: Path) -> None:
        # An id beyond the embedding table would be read from memory that is not its own.
        known = self._target.facts.vocab_size
        if self._format.vocab_size > known:
            raise ModelFolderError(
                f"{folder}: its tokenizer has {self._format.vocab_size} tokens, its weights {known}. "
                "The folder mixes two models: fetch it again."
            )

    def _warm_up(self, folder: Path) -> None:
        """Compile what the first reply would wait for, and find weights that give no numbers."""
        prompt = self._format.render([events.Message("user", "Hello")])
        session = self._new_session()
        hidden = self._target.forward(mx.array([prompt]), session.cache)
        if not mx.all(mx.isfinite(self._target.logits(hidden))).item():
            raise ModelFolderError(f"{folder}: its weights give no usable numbers (NaN). Fetch the folder again.")
        for draft_length in (events.DEFAULT_DRAFT_LENGTH, 0):
            request = events.Generate(0, (), draft_length=draft_length, max_tokens=WARM_UP_TOKENS)
            plan = self._plan(request, len(prompt), ReplyControl(draft_length))
            list(generate(self._new_session(), prompt, plan))


class GenerationConfig(msgspec.Struct, frozen=True):
    """The folder's own settings: what a request leaves open, and what it may not change."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    eos_token_id: int | list[int] | None = None
    suppress_tokens: list[int] | None = None

    @classmethod
    def read(cls, folder: Path) -> GenerationConfig:
        """From generation_config.json; nothing set if there is none. Raises ModelFolderError."""
        path = folder / "generation_config.json"
        if not path.exists():
            return cls()
        try:
            return msgspec.convert(read_json(path), cls)
        except msgspec.ValidationError as error:
            raise ModelFolderError(f"{path} cannot be used: {error}. Correct or remove it.") from None

    @property
    def default_temperature(self) -> float:
        """Greedy only where the folder says so."""
        if self.do_sample is False:
            return 0.0
        return 1.0 if self.temperature is None else self.temperature

    @property
    def eos_tokens(self) -> frozenset[int]:
        """Ids at which a reply ends, beside the family's own."""
        eos = self.eos_token_id
        return frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])


def _chosen(given: T | None, default: T) -> T:
    return default if given is None else given
