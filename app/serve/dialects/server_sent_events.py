"""The form of a streamed answer: events, each a few lines that end in an empty one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

COMMENT = b": keep-alive\n\n"
"""A sign of life that every reader skips."""
DONE = b"data: [DONE]\n\n"


def event(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """One event with its data as JSON. name: what the `event:` line says; None: there is no such line."""
    head = b"" if name is None else b"event: %s\n" % name.encode()
    return b"%sdata: %s\n\n" % (head, msgspec.json.encode(data))
