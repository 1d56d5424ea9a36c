"""What a chat is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlx_engine.events import DraftSetting, SamplingOptions


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
    log_path: Path | None = None
    """Where a crash is written down."""
