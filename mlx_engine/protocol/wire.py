"""Messages over a pipe: a length of four bytes, then that much JSON. One schema, checked on both sides."""

from __future__ import annotations

from typing import IO, Any

import msgspec

MAX_FRAME_BYTES = 256 << 20
"""A conversation of any length fits; a stray writer on the pipe is noticed before it fills the memory."""

STATUS_TOLD = 3
"""Exit status of an engine that has said in a message why it ends."""


class WireError(Exception):
    """The pipe carries something that is not a message of this protocol."""


def write(pipe: IO[bytes], message: msgspec.Struct) -> None:
    """Send one message.

    Raises OSError if the other side is gone, UnicodeEncodeError for a text that UTF-8 cannot hold.
    """
    body = msgspec.json.encode(message)
    pipe.write(len(body).to_bytes(4, "big") + body)
    pipe.flush()


def read(pipe: IO[bytes], kind: Any) -> Any:
    """The next message of `kind`, a tagged union; None at the end of the pipe. Raises WireError."""
    head = pipe.read(4)
    if not head:
        return None
    length = int.from_bytes(head, "big")
    if len(head) < 4 or length > MAX_FRAME_BYTES:
        raise WireError("a message that is cut short or too long")
    body = pipe.read(length)
    if len(body) < length:
        raise WireError("a message that is cut short")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WireError(f"a message of another form ({error})") from None
