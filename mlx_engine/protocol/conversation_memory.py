"""How much memory conversations may take beside the weights, those that are not running included."""

from __future__ import annotations

SHARE = 1 / 4
"""Of what the weights leave. The rest is for the passes themselves and for what else the machine does."""


def conversation_bytes(setting: int | None, room_bytes: int) -> int:
    """setting: by a person; None: by the machine. room_bytes: what the weights leave of the device's memory.

    The running conversation counts and is never dropped, so this bounds what is kept beside it.
    """
    return int(SHARE * max(0, room_bytes)) if setting is None else setting
