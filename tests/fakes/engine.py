"""A scripted engine: the tests say what happens, and read what was asked."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from mlx_engine.protocol.events import (
    Checked,
    Count,
    Counted,
    Died,
    DraftSetting,
    Event,
    Failed,
    Finished,
    FinishReason,
    Generate,
    Load,
    Loading,
    Prefilled,
    Ready,
    Round,
    Started,
)


class FakeEngine:
    """Keeps what was asked; speaks only when a test lets it, and on another thread, as the real one does."""

    def __init__(self, drafter: str | None = "fake-assistant") -> None:
        self.drafter = drafter
        self.refusal: str | None = None
        """Why the drafter that was asked for is not used."""
        self.requests: list[Generate] = []
        self.draft_lengths: list[DraftSetting] = []
        self.counts: list[Count] = []
        self.measures: list[int] = []
        self.loads: list[Load] = []
        self.cancels = 0
        self.is_closed = False
        self.is_dead = False
        self._listener: Callable[[Event], None] | None = None
        self._waiting: list[Event] = []

    @property
    def on_event(self) -> Callable[[Event], None] | None:
        """Whoever listens; until somebody does, events wait."""
        return self._listener

    @on_event.setter
    def on_event(self, listener: Callable[[Event], None] | None) -> None:
        self._listener = listener
        if listener:
            waiting, self._waiting = self._waiting, []
            self.emit(*waiting)

    def start(self) -> None:
        """Load at once."""
        self.emit(Loading("fake"), self.ready())

    def generate(self, request: Generate) -> None:
        """Keep the request; `begin`, `say` and `finish` answer the newest. An engine that died loads again."""
        self.requests.append(request)
        if self.is_dead:
            self.is_dead = False
            self.start()

    def check(self, request: Generate) -> None:
        """Everything is fine, and four characters are a token. An engine that died loads again."""
        if self.is_dead:
            self.is_dead = False
            self.start()
        tokens = sum(len(message.text) for message in request.messages) // 4
        self.emit(Checked(request.id, tokens, 32_768))

    def cancel(self) -> None:
        """Keep the call; `finish("cancelled")` obeys it."""
        self.cancels += 1

    def set_draft_length(self, draft_length: DraftSetting) -> None:
        """Keep the number."""
        self.draft_lengths.append(draft_length)

    def count(self, id: int, text: str) -> None:
        """Four characters are a token here."""
        self.counts.append(Count(id, text))
        self.emit(Counted(id, len(text) // 4))

    def measure(self, id: int) -> None:
        """Keep the id; `emit` answers it."""
        self.measures.append(id)

    def switch(self, load: Load) -> None:
        """Remember what is to be loaded; `emit` tells how it went."""
        self.loads.append(load)

    def close(self) -> None:
        """Remember it."""
        self.is_closed = True

    @property
    def running(self) -> int:
        """The newest request's id."""
        return self.requests[-1].id

    def emit(self, *events: Event) -> None:
        """Send events from another thread; returns when they are delivered."""
        thread = Thread(target=lambda: [*map(self._listener or self._waiting.append, events)])
        thread.start()
        thread.join()

    def ready(self) -> Ready:
        """The pair that this engine pretends to be."""
        return Ready(
            target="fake",
            drafters={} if self.refusal or not self.drafter else {"assistant": self.drafter},
            refusal=self.refusal,
            start_length=4,
            precision="4-bit",
            context_tokens=32_768,
            memory_bytes=17_200_000_000,
            working_set_bytes=38_000_000_000,
            load_s=0.1,
        )

    def begin(self, prompt_tokens: int = 12) -> None:
        """The newest request's prompt is read."""
        self.emit(
            Started(id=self.running, prompt_tokens=prompt_tokens, cached_tokens=0),
            Prefilled(id=self.running, done_tokens=prompt_tokens, total_tokens=prompt_tokens),
        )

    def say(
        self,
        text: str,
        *,
        drafted: int = 4,
        accepted: int = 3,
        round_s: float = 0.05,
        is_plain: bool = False,
        context_tokens: int = 3277,
        thinking: str = "",
        drafted_characters: int = 0,
        drafter: str = "assistant",
    ) -> None:
        """One round of the newest request."""
        self.emit(
            self.round(
                text,
                drafted,
                accepted,
                round_s,
                is_plain=is_plain,
                context_tokens=context_tokens,
                thinking=thinking,
                drafted_characters=drafted_characters,
                drafter=drafter,
            )
        )

    def round(
        self,
        text: str,
        drafted: int = 4,
        accepted: int = 3,
        round_s: float = 0.05,
        *,
        is_plain: bool = False,
        context_tokens: int = 3277,
        thinking: str = "",
        drafted_characters: int = 0,
        drafter: str = "assistant",
    ) -> Round:
        """One round, not sent."""
        if is_plain:
            drafted = accepted = 0
        return Round(
            id=self.running,
            text=text,
            thinking=thinking,
            token_ids=tuple(range(accepted + 1)),
            drafted=drafted,
            accepted=accepted,
            round_s=round_s,
            is_pipelined=is_plain,
            context_tokens=context_tokens,
            memory_bytes=17_300_000_000,
            elapsed_s=0.414,
            drafted_characters=drafted_characters,
            drafter=drafter if drafted else "",
        )

    def finish(self, reason: FinishReason = "stop", text: str = "") -> None:
        """The newest request's reply is complete."""
        self.emit(
            Finished(
                id=self.running,
                reason=reason,
                text=text,
                thinking="",
                target_passes=1,
                host_syncs=1,
                peak_memory_bytes=17_400_000_000,
            )
        )

    def fail(self, message: str = "It does not fit.") -> None:
        """The newest request fails."""
        self.emit(Failed(id=self.running, message=message))

    def die(self, message: str = "The engine ended by signal SIGKILL. Your next message restarts it.") -> None:
        """The process is gone."""
        self.is_dead = True
        self.emit(Died(message=message))
