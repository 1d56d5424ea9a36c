"""Which pair answers, or is on its way into memory, and which one it goes back to if that comes to nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from app.core.chat_options import ChatOptions
from app.core.dialogue import Tell
from app.core.pair_choice import PairChoice, absolute
from app.text import figures
from app.tui.bars.top_line import NO_DRAFTER, TopLine
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Loading, Ready

InThread = Callable[[Callable[[], None]], object]
Choose = Callable[[str, bool], PairChoice]
"""A pair by its name, its folder or its hub id, and whether it may be larger than the memory has room for; raises
SlipstreamError."""


class PairInUse:
    """The engine begins with loading `pair`. No method waits for it."""

    def __init__(
        self,
        engine: EngineHandle,
        pair: PairChoice,
        choose: Choose,
        options: ChatOptions,
        top_line: TopLine,
        tell: Tell,
        in_thread: InThread,
    ) -> None:
        """in_thread: does something that takes a while beside the screen."""
        self.pair = pair
        """The one that answers, or that is loading."""
        self.is_loading = True
        self._engine = engine
        self._choose = choose
        self._options = options
        self._top_line = top_line
        self._tell = tell
        self._in_thread = in_thread
        self._last_loaded = options.fallback
        self._chosen: tuple[PairChoice, str] | None = None
        """The pair that a person chose here, and how it was named; remembered once it is loaded."""
        self._is_unwanted = False
        """Loading was stopped, and nothing has been asked since."""

    def choose(self, name: str, is_oversized: bool = False) -> bool:
        """Go on with another pair. False: it is this one, or it cannot be, and that is told.

        is_oversized: a person wants it whether or not there is room for it.
        """
        if name == self.pair.title:
            return False
        try:
            pair = self._choose(name, is_oversized)
        except SlipstreamError as error:
            self._tell(str(error), severity="error")
            return False
        self._chosen = pair, absolute(name) if pair.load.target == absolute(name) else name
        self._switch(pair)
        return True

    def wanted(self) -> None:
        """A message was sent: the engine loads, if it has not."""
        self._is_unwanted = False

    def loading(self, event: Loading) -> None:
        """It is this far."""
        if self._is_unwanted:
            return  # it was on its way when loading was stopped
        self.is_loading = True
        done, total = (figures.size(size_bytes).strip() for size_bytes in (event.done_bytes, event.total_bytes))
        self._top_line.say(f"loading {done} of {total}" if event.total_bytes else f"loading: {event.what}")

    def loaded(self, ready: Ready) -> None:
        """It answers from now on."""
        self.is_loading, self._last_loaded = False, self.pair
        self._top_line.drafter = ready.drafter or NO_DRAFTER
        chosen, self._chosen = self._chosen, None
        if chosen is not None and chosen[0] is self.pair:
            self._options.remember("model", chosen[1], self._tell)

    def broke_off(self) -> None:
        """What was loading cannot be loaded."""
        if self.is_loading:
            self.is_loading = False
            self._go_back()

    def stop_loading(self) -> None:
        """The person does not want it after all."""
        self._tell(f"Loading {self.pair.title} was stopped.")
        self.is_loading = False
        if not self._go_back():
            self._is_unwanted = True
            self._in_thread(self._engine.close)
            self._top_line.say("not loaded")
            self._tell("The next message loads it again; /model lists the others.")

    def _switch(self, pair: PairChoice) -> None:
        """Give the memory back, and load another pair."""
        self.pair = pair
        self.is_loading, self._is_unwanted = True, False
        self._top_line.model, self._top_line.drafter = pair.title, None
        self._top_line.say("unloading")
        if pair.notice:
            self._tell(pair.notice)
        # It waits until the old pair's memory is back.
        self._in_thread(partial(self._engine.switch, pair.load))

    def _go_back(self) -> bool:
        """Load the pair again that answered before, if there is another one."""
        before = self._last_loaded
        if before is None or before is self.pair:
            return False
        self._tell(f"Going back to {before.title}.")
        self._switch(before)
        return True
