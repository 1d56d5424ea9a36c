"""The pair that is loaded, or being loaded, and the one to go back to if loading fails."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from app.core.pair_choice import PairChoice
from app.core.reply_view import Tell
from app.text import figures
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.events import Loading, Ready
from mlx_engine.protocol.stats import BaselineSpeed

NO_REPORT = (
    "The report measures this machine, but a server makes the replies here. `slipstream doctor --report FILE` "
    "measures it."
)
InThread = Callable[[Callable[[], None]], object]
"""Runs something slow without waiting for it."""


def short_name(model: str) -> str:
    """Of a server's model: some name it by the folder that it is in on their machine."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith("/") else model


class PairState(Enum):
    """How far loading is."""

    LOADING = auto()
    LOADED = auto()
    CANCELLED = auto()
    """The person stopped loading. Late events about it are ignored."""
    FAILED = auto()
    """Loading failed, or the engine ended. The next message tries again."""


class CurrentPair:
    """The engine is loading `choice` at the start. No method waits for the engine."""

    def __init__(
        self,
        engine: EngineHandle,
        choice: PairChoice,
        tell: Tell,
        *,
        fallback: PairChoice | None = None,
        in_thread: InThread = lambda work: work(),
        remember: Callable[[str], None] = lambda name: None,
    ) -> None:
        """fallback: what to go back to if `choice` cannot be loaded; of an attached server, what the engine loads
        once that has ended. remember: called with the name of a pair that the person chose, once it is loaded."""
        self.choice = choice
        self.state = PairState.LOADING
        self.ready: Ready | None = None
        """None until it is loaded."""
        self.baseline = BaselineSpeed()
        """Of this pair, as measured so far."""
        self.is_silent = False
        """Whether the engine gives no sign of life, or does not stop when asked to."""
        self.status = "loading"
        """Its state for the top line."""
        self._engine = engine
        self._tell = tell
        self._in_thread = in_thread
        self._remember = remember
        self._own, self._last_loaded = fallback, fallback
        self._chosen_name: str | None = None
        """The name of `choice` until it is loaded, if the person chose it in this chat."""
        self._refusal: str | None = None
        """Why the last pair's drafter could not be used; the person is told once."""

    @property
    def title(self) -> str:
        """Its name on the screen; of a server, once it is known, its model as well."""
        if self.choice.is_served and self.ready is not None:
            return f"{self.model} at {self.choice.title}"
        return self.choice.title

    @property
    def model(self) -> str:
        """The name by which a person chooses it."""
        if self.choice.is_served and self.ready is not None:
            return short_name(self.ready.target)
        return self.choice.title

    @property
    def is_loading(self) -> bool:
        return self.state is PairState.LOADING

    @property
    def has_failed(self) -> bool:
        """Whether loading failed, or the engine ended."""
        return self.state is PairState.FAILED

    @property
    def has_drafter(self) -> bool:
        """Whether drafting can be switched. True until it is loaded, since it may."""
        return self.ready is None or self.ready.can_draft

    @property
    def can_think(self) -> bool:
        """Whether thinking changes its replies. True until it is loaded, since it may."""
        return not self.choice.is_pocket and (self.ready is None or self.ready.can_think)

    @property
    def is_drafter_refused(self) -> bool:
        """Whether a drafter was requested that cannot be used, and there is no other."""
        return self.ready is not None and self.ready.refusal is not None and not self.ready.drafters

    def switch(self, choice: PairChoice, name: str) -> None:
        """Load another pair. name: what the person called it, to remember it by."""
        self._chosen_name = name
        self._load(choice)

    def message_sent(self) -> None:
        """A request makes the engine load the pair, even if the person stopped that before."""
        if self.state is PairState.CANCELLED:
            self.state = PairState.LOADING

    def loading(self, event: Loading) -> None:
        if self.state is PairState.CANCELLED:
            return
        self.state = PairState.LOADING
        if not event.is_remote:
            self._leave_ended_server()
        if event.total_bytes:
            done, total = (figures.size(count).strip() for count in (event.done_bytes, event.total_bytes))
            self.status = f"loading {done} of {total}"
        else:
            self.status = f"loading: {event.step}"

    def loaded(self, ready: Ready) -> None:
        if ready.server is None:
            self._leave_ended_server()
        self.state, self.status, self.ready = PairState.LOADED, "ready", ready
        self._last_loaded = self.choice
        name, self._chosen_name = self._chosen_name, None
        if name is not None and not self.choice.is_served:
            self._remember(name)
        refusal, self._refusal = self._refusal, ready.refusal
        if ready.refusal is not None and ready.refusal != refusal:
            others = f"Drafting only with {', '.join(ready.drafters.values())}." if ready.drafters else ""
            state = others or "Replies are made without a drafter."
            self._tell(f"{state} {ready.refusal}", severity="warning", timeout=20)

    def failed(self, status: str) -> None:
        """Loading failed, or the engine ended. status: for the top line."""
        self.is_silent = False
        was_loading = self.is_loading
        self.state, self.status = PairState.FAILED, status
        if was_loading:
            self._go_back()

    def restart(self) -> None:
        """Load the pair again in a new process, as the person asks, because the engine does not answer."""
        self._tell("Restarting the engine.")
        self._load(self.choice)

    def stop_loading(self) -> None:
        """Stop loading, as the person asks."""
        self._tell(f"Stopped loading {self.choice.title}.")
        self.state, self.status = PairState.CANCELLED, "not loaded"
        if not self._go_back():
            self._in_thread(self._engine.close)
            self._tell("Your next message loads it again. /model lists the other models.")

    def why_no_drafting(self, purpose: str) -> str:
        """Why there is nothing to `purpose`, such as "compare", where drafting cannot be switched."""
        if self.ready is not None and self.ready.server is not None:
            return f"{self.ready.server.why_drafting_stays} There is nothing to {purpose}."
        if self.ready is not None and self.ready.refusal is not None:
            return f"Drafting is off, so there is nothing to {purpose}. {self.ready.refusal}"
        return f"This model runs without a drafter, so there is nothing to {purpose}."

    def _leave_ended_server(self) -> None:
        """The engine loads a model here in place of the attached server's: that has ended."""
        if self.choice.is_attached and self._own is not None:
            self.choice = self._last_loaded = self._own
            self.ready = None

    def _load(self, choice: PairChoice) -> None:
        self.choice = choice
        self.is_silent = False
        status = "connecting" if choice.is_served else "unloading"
        self.state, self.status, self.ready = PairState.LOADING, status, None
        self.baseline = BaselineSpeed()
        if choice.notice:
            self._tell(choice.notice)
        # In a thread, because it waits until the old pair's memory is free.
        self._in_thread(partial(self._engine.switch, choice.load))

    def _go_back(self) -> bool:
        """Load the last pair that was loaded, unless it is this one."""
        before = self._last_loaded
        if before is None or before is self.choice:
            return False
        self._chosen_name = None
        self._tell(f"Going back to {before.title}.")
        self._load(before)
        return True
