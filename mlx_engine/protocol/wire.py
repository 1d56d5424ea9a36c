"""Messages over a pipe: four bytes for the length, then JSON. Both sides check it against one schema."""

from __future__ import annotations

import os
from typing import IO, Any, Protocol

import msgspec

MAX_FRAME_BYTES = 256 << 20
"""Enough for any conversation; stray output on the pipe is noticed before it fills the memory."""

READ_BYTES = 1 << 20

STATUS_REPORTED = 3
"""Exit status of an engine that reported in a message why it ends."""


class WireError(Exception):
    """The pipe carries something other than messages of this protocol."""


class Readable(Protocol):
    """What `read` reads from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes: `size` of them, fewer only at the end."""
        ...


class Descriptor:
    """Reads from a file descriptor without a buffer.

    A thread that waits inside one of Python's buffers has its lock, which aborts the interpreter when it ends.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int, /) -> bytes:
        """See Readable. Raises OSError."""
        data = bytearray()
        while len(data) < size and (part := os.read(self._descriptor, min(size - len(data), READ_BYTES))):
            data += part
        return bytes(data)


def encode(message: msgspec.Struct) -> bytes:
    """The bytes of one message. Raises UnicodeEncodeError for a text that UTF-8 cannot encode."""
    body = msgspec.json.encode(message)
    return len(body).to_bytes(4, "big") + body


def write(pipe: IO[bytes], message: msgspec.Struct) -> None:
    """Send one message. Raises OSError if the other side is gone, and UnicodeEncodeError."""
    pipe.write(encode(message))
    pipe.flush()


def read(pipe: Readable, kind: Any) -> Any:
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
