"""What one run of the chat is started with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.core.pair_choice import PairChoice
from app.settings.remembered import RememberedChoices
from app.settings.table import Settings


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The same from the first message of a run to the last."""

    settings: Settings = field(default_factory=Settings)
    """What the person has set; a chat may change some of it for itself."""
    chat_id: int | None = None
    """The stored chat to continue; None starts a new one."""
    about_model: str | None = None
    """A sentence about the model for the first screen; the pocket pair says here what it is."""
    history_path: Path | None = None
    """Where prompts are kept for the next run; None keeps them for this run."""
    log_path: Path | None = None
    """Where a crash is written down."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where the person sets theme and model, if so: a choice made in the chat then lasts for this run only."""
    fallback: PairChoice | None = None
    """What to load if the first pair cannot be loaded."""
    state: RememberedChoices = field(default_factory=RememberedChoices)
    """What is remembered from run to run; without a file, nothing is."""
    notices: tuple[str, ...] = ()
    """What to tell the person at the start."""

    def remember(self, name: str, value: str | bool, tell: Callable[[str], None]) -> None:
        """Keep a choice made on the screen for the next run, or tell why it will not last."""
        self.state.remember(**{name: value})
        notice, self.state.notice = self.state.notice, None
        if name in self.sources:
            tell(f"For this run only: {self.sources[name]} sets the {name} at the start.")
        elif notice is not None:
            tell(notice)
