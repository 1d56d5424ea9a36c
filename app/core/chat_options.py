"""What the chat is started with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.pair_choice import PairChoice
from app.settings.remembered import RememberedChoices
from app.settings.table import Settings

Examine = Callable[[], tuple[Mapping[str, Any] | None, Sequence[Mapping[str, str]]]]
"""What MLX says about this machine (None: it does not start), and the rows of `slipstream doctor`. Takes time."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """Does not change while the program runs."""

    settings: Settings = field(default_factory=Settings)
    """The settings in effect; a chat may have some of its own."""
    chat_id: int | None = None
    """The stored chat to continue; None starts a new one."""
    about_model: str | None = None
    """A sentence about the model for the first screen; the pocket pair explains itself here."""
    history_path: Path | None = None
    """Where prompts are kept; None keeps them for this run only."""
    log_path: Path | None = None
    """Where crashes are logged."""
    open_chats_path: Path | None = None
    """Where running chats mark the stored chat that they have open; None: nowhere."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where the person has set `theme` or `model`: a choice made in the chat then lasts for this run only."""
    fallback: PairChoice | None = None
    """What to load if the first pair cannot be loaded, or once the server that the chat is attached to ended."""
    state: RememberedChoices = field(default_factory=RememberedChoices)
    """Choices remembered from earlier runs."""
    notices: tuple[str, ...] = ()
    """Shown at the start."""
    examine: Examine = lambda: (None, ())
    """For a report about this machine."""

    def remember(self, name: str, value: str | bool, tell: Callable[[str], None]) -> None:
        """Remember a choice made on the screen for the next run, or tell the person why it is not remembered."""
        self.state.remember(**{name: value})
        notice, self.state.notice = self.state.notice, None
        if name in self.sources:
            tell(f"For this run only: {self.sources[name]} sets the {name} at the start.")
        elif notice is not None:
            tell(notice)
