"""Messages over a pipe: four bytes for the length, then JSON. Both sides check it against one schema."""

from __future__ import annotations

from typing import IO, Any

import msgspec

MAX_FRAME_BYTES = 256 << 20
"""Enough for any conversation; stray output on the pipe is noticed before it fills the memory."""

STATUS_REPORTED = 3
"""Exit status of an engine that reported in a message why it ends."""


class WireError(Exception):
    """The pipe carries something other than messages of this protocol."""


def write(pipe: IO[bytes], message: msgspec.Struct) -> None:
    """Send one message.

    Raises OSError if the other side is gone, UnicodeEncodeError for a text that UTF-8 cannot encode.
    """
    body = msgspec.json.encode(message)
    pipe.write(len(body).to_bytes(4, "big") + body)
    pipe.flush()


def read(pipe: IO[bytes], kind: Any) -> Any:
    """The next message of `kind`, a tagged union; None when the pipe is closed. Raises WireError."""
    head = pipe.read(4)
    if not head:
        return None
    length = int.from_bytes(head, "big")
    if len(head) < 4 or length > MAX_FRAME_BYTES:
        raise WireError("a message that is truncated or too long")
    body = pipe.read(length)
    if len(body) < length:
        raise WireError("a truncated message")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"a message of an unknown form ({error})") from None
