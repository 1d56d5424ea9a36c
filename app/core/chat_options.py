"""What a chat is started with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.core.pair_choice import PairChoice
from app.settings.remembered import RememberedChoices
from app.settings.table import SendKey
from mlx_engine.protocol.events import DraftSetting, SamplingOptions


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """The settings of one run of the chat, the same for every message."""

    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    draft_length: DraftSetting = "auto"
    """Tokens drafted per round; 0 starts with drafting off."""
    max_tokens: int | None = None
    system: str | None = None
    is_thinking: bool = False
    """Whether the model may think before it answers."""
    chat_id: int | None = None
    """The stored chat to go on with."""
    about_model: str | None = None
    """A sentence about the model for the first screen; the pocket pair says here what it is."""
    history_path: Path | None = None
    """Where the prompts are kept; None keeps them for this run."""
    log_path: Path | None = None
    """Where a crash is written down."""
    theme: str | None = None
    send_key: SendKey = "enter"
    keys: Mapping[str, str] = field(default_factory=dict)
    """Other keys, by the id of what they do."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Where the person names the theme and the model; what is chosen in the chat then holds until it ends."""
    fallback: PairChoice | None = None
    """What to load if the first pair cannot be."""
    state: RememberedChoices = field(default_factory=RememberedChoices)
    """What is remembered from run to run; without a file, nothing is."""
    notices: tuple[str, ...] = ()
    """What is to be told first."""

    def remember(self, name: str, value: str | bool, tell: Callable[[str], None]) -> None:
        """Have a choice made on the screen the next time as well; where that is not so, it is told."""
        self.state.remember(**{name: value})
        notice, self.state.notice = self.state.notice, None
        if name in self.named:
            tell(f"For now: {self.named[name]} names the {name} to begin with.")
        elif notice is not None:
            tell(notice)
