"""An engine whose every second is made up, on a clock that only moves when it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlx_engine.protocol.events import (
    Died,
    DraftSetting,
    Event,
    Failed,
    Finished,
    FinishReason,
    Generate,
    Load,
    Measured,
    Prefilled,
    Ready,
    Round,
    Started,
)
from mlx_engine.protocol.micro_figures import MicroFigures

PREFILL_S_PER_TOKEN = 0.001
ROUND_S = 0.05
"""Of a plain round while the machine is fresh."""


class FakeClock:
    """A Clock that is pushed."""

    def __init__(self) -> None:
        self.time_s = 1000.0
        self.slept_s = 0.0

    def now_s(self) -> float:
        """See Clock."""
        return self.time_s

    def sleep_s(self, seconds: float) -> None:
        """See Clock."""
        self.slept_s += seconds
        self.time_s += seconds


class ClockworkEngine:
    """Answers at once, on the caller's thread.

    costs: seconds of a round at a setting against a plain round; accepted: drafts accepted in every round.
    slowness: what the clock's time makes of every duration. tokens_of: the reply's tokens, by setting.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.costs: Mapping[DraftSetting, float] = {0: 1.0, 2: 1.25, 4: 1.6, 8: 2.4, 16: 4.0, "auto": 1.6}
        self.accepted: Mapping[DraftSetting, int] = {0: 0, 2: 1, 4: 3, 8: 4, 16: 5, "auto": 3}
        self.slowness: Callable[[float], float] = lambda time_s: 1.0
        self.tokens_of: Callable[[Generate], list[int]] = lambda request: list(range(request.max_tokens or 0))
        self.before_reply: Callable[[Generate], None] = lambda request: None
        self.refuses: Callable[[Generate], str | None] = lambda request: None
        self.dies_at = 1 << 30
        self.hangs_at = 1 << 30
        """The reply that makes no progress until it is cancelled."""
        self.requests: list[Generate] = []
        self.measures: list[int] = []
        self.cancel_measures: Callable[[], None] = lambda: None
        self.figures: MicroFigures | None = MicroFigures(product_s={1: 0.001, 2: 0.0015})
        self.loads: list[Load] = []
        self.is_cancelled = False
        self.cancelled: list[int] = []
        self.is_closed = False
        self.on_event: Callable[[Event], None] | None = None
        self.refusal: str | None = None
        self.drafter_bits: int | None = None
        self.context_tokens = 4096
        self._read = ""

    def start(self) -> None:
        """Load at once."""
        self._emit(
            Ready(
                target="fake",
                drafters={"assistant": "fake-assistant"},
                start_length=4,
                precision="4-bit",
                context_tokens=self.context_tokens,
                memory_bytes=1,
                working_set_bytes=None,
                load_s=0.1,
                refusal=self.refusal,
                drafter_bits=self.drafter_bits,
            )
        )

    def generate(self, request: Generate) -> None:
        """Make the whole reply."""
        self.requests.append(request)
        self.is_cancelled = False
        self.before_reply(request)
        if len(self.requests) >= self.dies_at:
            self._emit(Died("The engine ended by signal SIGKILL."))
            return
        if message := self.refuses(request):
            self._emit(Failed(request.id, message))
            return
        self._reply(request)

    def check(self, request: Generate) -> None:
        """Nobody asks for it."""

    def cancel(self) -> None:
        """End the reply at its next round, or the measurements that do not end by themselves."""
        self.cancel_measures()
        self.is_cancelled = True
        self.cancelled.append(self.requests[-1].id)
        if len(self.requests) == self.hangs_at:
            self._emit(Finished(self.requests[-1].id, "cancelled", "", "", 0, 0, 0))

    def set_draft_length(self, draft_length: DraftSetting) -> None:
        """Nobody asks for it."""

    def count(self, id: int, text: str) -> None:
        """Nobody asks for it."""

    def measure(self, id: int) -> None:
        """Measure at once what `figures` says; a failure if it is None."""
        self.measures.append(id)
        self._emit(Failed(id, "no room") if self.figures is None else Measured(id, self.figures))

    def switch(self, load: Load) -> None:
        """Remember it."""
        self.loads.append(load)

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True

    def fail(self, id: int, message: str) -> None:
        """A request fails."""
        self._emit(Failed(id, message))

    def _reply(self, request: Generate) -> None:
        submitted_at_s = self.clock.time_s
        text = "".join(message.text for message in request.messages)
        length = len(text) // 4
        cached = length - 1 if text == self._read else 0
        self._read = text
        self._emit(Started(request.id, length, cached))
        if len(self.requests) == self.hangs_at:
            return
        self._pass(PREFILL_S_PER_TOKEN * (length - cached))
        self._emit(Prefilled(request.id, length, length))
        setting, tokens = request.draft_length, self.tokens_of(request)
        passes = 0
        while tokens and not self.is_cancelled:
            accepted = min(self.accepted[setting], len(tokens) - 1)
            run, tokens = tokens[: accepted + 1], tokens[accepted + 1 :]
            round_s = self._pass(ROUND_S * self.costs[setting])
            passes += 1
            drafted = setting if isinstance(setting, int) else 4
            self._emit(
                Round(
                    id=request.id,
                    text="",
                    thinking="",
                    token_ids=tuple(run),
                    drafted=max(drafted, accepted),
                    accepted=accepted,
                    round_s=round_s,
                    is_pipelined=False,
                    context_tokens=length,
                    memory_bytes=1,
                    elapsed_s=self.clock.time_s - submitted_at_s,
                    drafter="assistant" if drafted else "",
                )
            )
        reason: FinishReason = "cancelled" if self.is_cancelled else "length"
        self._emit(Finished(request.id, reason, "", "", passes, passes, 5_000_000))

    def _pass(self, seconds: float) -> float:
        seconds *= self.slowness(self.clock.time_s)
        self.clock.time_s += seconds
        return seconds

    def _emit(self, event: Event) -> None:
        assert self.on_event
        self.on_event(event)
