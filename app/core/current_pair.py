"""The pair that answers, or is being loaded, and the one to go back to if loading fails."""

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

InThread = Callable[[Callable[[], None]], object]
"""Runs something that takes a while, without waiting for it."""


class PairState(Enum):
    """Where the pair is on its way into memory."""

    LOADING = auto()
    LOADED = auto()
    CANCELLED = auto()
    """The person stopped loading. Events of that load may still arrive, and are ignored."""
    FAILED = auto()
    """It could not be loaded, or the engine ended; the next message tries again."""


class CurrentPair:
    """The engine starts by loading `choice`. No method waits for it."""

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
        """remember: called with the name of a pair that the person chose, once it has been loaded."""
        self.choice = choice
        self.state = PairState.LOADING
        self.ready: Ready | None = None
        """What the engine reported of it; None until it is loaded."""
        self.baseline = BaselineSpeed()
        """Of plain decoding with this pair, as measured so far."""
        self.words = "loading"
        """Its state in a few words."""
        self._engine = engine
        self._tell = tell
        self._in_thread = in_thread
        self._remember = remember
        self._last_loaded = fallback
        self._chosen_name: str | None = None
        """How the person named `choice`, until it is loaded; None: it was not chosen in this chat."""
        self._refusal: str | None = None
        """The last reason given for a drafter that is not used."""

    @property
    def is_loading(self) -> bool:
        """Whether it is on its way into memory."""
        return self.state is PairState.LOADING

    @property
    def has_failed(self) -> bool:
        """Whether it could not be loaded, or its engine ended."""
        return self.state is PairState.FAILED

    @property
    def has_drafter(self) -> bool:
        """Whether it can draft, as far as is known: until it is loaded, yes."""
        return self.ready is None or self.ready.drafter is not None

    @property
    def is_drafter_refused(self) -> bool:
        """Whether a drafter was requested that cannot be used."""
        return self.ready is not None and self.ready.refusal is not None

    def switch(self, choice: PairChoice, name: str) -> None:
        """Load another pair. name: what the person called it, to remember it by."""
        self._chosen_name = name
        self._load(choice)

    def message_sent(self) -> None:
        """The engine loads now if it has not."""
        if self.state is PairState.CANCELLED:
            self.state = PairState.LOADING

    def loading(self, event: Loading) -> None:
        """Progress of loading."""
        if self.state is PairState.CANCELLED:
            return
        self.state = PairState.LOADING
        if event.total_bytes:
            done, total = (figures.size(count).strip() for count in (event.done_bytes, event.total_bytes))
            self.words = f"loading {done} of {total}"
        else:
            self.words = f"loading: {event.step}"

    def loaded(self, ready: Ready) -> None:
        """It answers from now on."""
        self.state, self.words, self.ready = PairState.LOADED, "ready", ready
        self._last_loaded = self.choice
        name, self._chosen_name = self._chosen_name, None
        if name is not None:
            self._remember(name)
        refusal, self._refusal = self._refusal, ready.refusal
        if ready.refusal is not None and ready.refusal != refusal:
            self._tell(f"Replies are made without a drafter. {ready.refusal}", severity="warning", timeout=20)

    def failed(self, words: str) -> None:
        """It could not be loaded, or the engine ended. words: for the top line."""
        was_loading = self.is_loading
        self.state, self.words = PairState.FAILED, words
        if was_loading:
            self._go_back()

    def stop_loading(self) -> None:
        """The person does not want to wait for it."""
        self._tell(f"Stopped loading {self.choice.title}.")
        self.state, self.words = PairState.CANCELLED, "not loaded"
        if not self._go_back():
            self._in_thread(self._engine.close)
            self._tell("Your next message loads it again. /model lists the other models.")

    def why_no_drafting(self, purpose: str) -> str:
        """Why there is nothing to `purpose`, such as "compare", where the pair has no drafter."""
        if self.ready is not None and self.ready.refusal is not None:
            return f"Drafting is off, so there is nothing to {purpose}. {self.ready.refusal}"
        return f"This model runs without a drafter, so there is nothing to {purpose}."

    def _load(self, choice: PairChoice) -> None:
        self.choice = choice
        self.state, self.words, self.ready = PairState.LOADING, "unloading", None
        self.baseline = BaselineSpeed()
        if choice.notice:
            self._tell(choice.notice)
        # It waits until the old pair's memory is free.
        self._in_thread(partial(self._engine.switch, choice.load))

    def _go_back(self) -> bool:
        """Load the pair that answered before, if it was another one."""
        before = self._last_loaded
        if before is None or before is self.choice:
            return False
        self._chosen_name = None
        self._tell(f"Going back to {before.title}.")
        self._load(before)
        return True
