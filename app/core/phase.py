"""What the chat is doing: one value, owned by the Dialogue. Everything else asks it."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """The value is the text of the top line, unless there is a more exact one."""

    IDLE = "ready"
    LOADING = "loading"
    """A model is being loaded, and no message waits for it. Messages can be sent."""
    READING_FILES = "reading files"
    """A message is on its way; the files in it are being read."""
    WAITING = "waiting"
    """For the first token: the model is still being loaded, or the prompt is being read."""
    REPLYING = "generating"
    STOPPING = "stopping"
    """The reply ends at its next round."""
    COMPARING = "comparing"
    """The last message is being replayed without and with drafting."""

    @property
    def is_replying(self) -> bool:
        """Whether a reply is awaited or being written."""
        return self in (Phase.WAITING, Phase.REPLYING, Phase.STOPPING)

    @property
    def is_busy(self) -> bool:
        """Whether the next message has to wait."""
        return self not in (Phase.IDLE, Phase.LOADING)
