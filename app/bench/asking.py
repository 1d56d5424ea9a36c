"""One request at a time on a loaded pair, and the figures of each reply. Knows nothing of bench plans."""

from __future__ import annotations

import queue
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from app.bench.energy import EnergyMeter
from app.core.reply_facts import ReplyFacts
from app.system.interrupts import Stop
from mlx_engine.client import EngineHandle, raise_if_failed
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import RequestError, SlipstreamError
from mlx_engine.protocol.micro_figures import MicroFigures
from mlx_engine.protocol.stats import ReplyStats

STOP_S = 0.2
"""How often measurements look for a request to stop: the engine sends nothing meanwhile."""


class Clock(Protocol):
    """A clock to read and to sleep on; tests replace it."""

    def now_s(self) -> float:
        """Seconds since an arbitrary moment."""
        ...

    def sleep_s(self, seconds: float) -> None:
        """Wait for this many seconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_s(self) -> float:
        return time.monotonic()

    def sleep_s(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class BenchAnswer:
    """A reply's figures and tokens."""

    facts: ReplyFacts
    finished: events.Finished
    energy_j: float | None
    last_round: events.Round | None = None

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Empty if a server made them."""
        return tuple(self.facts.token_ids)

    @property
    def timed_tokens(self) -> int:
        """Those that `decode_s` is the time of. Raises RequestError if the server counts none."""
        stats = self.facts.stats
        if isinstance(stats, ReplyStats):
            return stats.generated_tokens
        if stats.generated_tokens is None:
            raise RequestError("The server does not count the tokens of its replies, so they cannot be measured.")
        return max(0, stats.generated_tokens - 1)


class BlockingEngine:
    """An engine whose caller waits for every reply."""

    def __init__(self, engine: EngineHandle, stop: Stop, meter: EnergyMeter) -> None:
        self._engine, self._stop, self._meter = engine, stop, meter
        self._inbox: queue.SimpleQueue[events.Event] = queue.SimpleQueue()
        self._next_id = 1
        self.notices: list[str] = []
        """Notices from the engine, in the order they came."""

    def load(self, *, needs_drafter: bool = True) -> events.Ready:
        """Start, and wait until the pair is loaded. Raises SlipstreamError, also for a refused drafter if it is
        needed."""
        self._engine.on_event = self._inbox.put
        self._engine.start()
        while True:
            event = self._next_event()
            if isinstance(event, events.Ready):
                if event.refusal and needs_drafter:
                    raise SlipstreamError(event.refusal)
                return event

    def ask(
        self,
        messages: tuple[events.Message, ...],
        sampling: events.SamplingOptions,
        setting: events.DraftSetting,
        max_tokens: int,
        is_thinking: bool = False,
    ) -> BenchAnswer:
        """The reply; its `finished.reason` is "cancelled" if a stop was requested.

        No round is spent on measuring the baseline speed. Raises RequestError for this request only, and
        EngineDiedError.
        """
        request = events.Generate(
            self._next_id, messages, sampling, setting, max_tokens, is_thinking, measures_baseline=False
        )
        self._next_id += 1
        facts = ReplyFacts()
        last_round: events.Round | None = None
        is_cancelled = False
        before_j = self._meter.read_j()
        self._engine.generate(request)
        while True:
            event = self._next_event()
            if self._stop.is_requested and not is_cancelled:
                self._engine.cancel()
                is_cancelled = True
            match event:
                case events.Started() | events.Part():
                    facts.add(event)
                case events.Round():
                    facts.add(event)
                    last_round = event
                case events.Finished():
                    facts.add(event)
                    return BenchAnswer(facts, event, self._meter.used_j(before_j), last_round)

    def measure(self) -> MicroFigures:
        """Half a minute of measurements of the loaded pair.

        Raises RequestError, also if a stop was requested, and EngineDiedError.
        """
        self._engine.measure(self._next_id)
        self._next_id += 1
        is_cancelled = False
        while True:
            if self._stop.is_requested and not is_cancelled:
                self._engine.cancel()
                is_cancelled = True
            with suppress(queue.Empty):
                if isinstance(event := self._next_event(STOP_S), events.Measured):
                    return event.figures

    def _next_event(self, timeout_s: float | None = None) -> events.Event:
        event = self._inbox.get(timeout=timeout_s)
        raise_if_failed(event)
        if isinstance(event, events.Notice | events.Silent):
            self.notices.append(event.message)
        return event
