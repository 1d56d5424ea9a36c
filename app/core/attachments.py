"""Text files in a message: `@path` mentions, reading the files, and taking a message with files apart again.

In a message the typed text comes first. Each file follows below it under its name, in a code fence longer than any
fence in the file.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from app.text.figures import size
from app.text.sanitise import sanitise_line
from mlx_engine.protocol.errors import SlipstreamError
from models.errors import PathError
from models.paths import expanded

MAX_FILE_BYTES = 1 << 20
"""Some 300,000 tokens, which is more than the context of any model."""

_MENTION = re.compile(r"""(?:\A|(?<=\s))@(?:"([^"\n]+)"|([^\s"]+))""")
_PUNCTUATION = ".,;:!?)]}'"
"""Not part of a path at the end of a mention, unless a file has that name."""
_HEADING = re.compile(r"^(@[^\n]+) \(([0-9]{1,3}(?:,[0-9]{3}){0,3}) bytes\):\n(`{3,})[^`\n]*\n", re.MULTILINE)


class AttachmentError(SlipstreamError):
    """A file cannot be attached."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A text file that is sent with a message."""

    mention: str
    """As it was typed, including the `@`."""
    text: str
    size_bytes: int

    @property
    def summary(self) -> str:
        """`@notes.md · 3.2 kB · 80 lines`."""
        return f"{self.name} · {self.size_text}"

    @property
    def name(self) -> str:
        """The mention, safe to print."""
        return sanitise_line(self.mention)

    @property
    def size_text(self) -> str:
        """`3.2 kB · 80 lines`."""
        lines = self.text.count("\n") + (not self.text.endswith("\n"))
        return f"{file_size(self.size_bytes)} · {lines:,} line{'s' * (lines != 1)}"


def file_size(count_bytes: int) -> str:
    """`812 bytes`, `3.2 kB`, `48 MB`."""
    if count_bytes < 1000:
        return f"{count_bytes} byte{'s' * (count_bytes != 1)}"
    return f"{count_bytes / 1000:.1f} kB" if count_bytes < 1e6 else size(count_bytes).strip()


def mentions(text: str) -> list[str]:
    """Every different `@path` in a text, in order, as it is typed."""
    return list(dict.fromkeys(match[0] for match in _MENTION.finditer(text)))


def mention_of(path: str) -> str:
    """`@path`, in quotes if it needs them."""
    return f'@"{path}"' if re.search(r"\s", path) or path.endswith(tuple(_PUNCTUATION)) else f"@{path}"


def read_mention(mention: str, folder: Path) -> Attachment | None:
    """Read the file that a mention names; None if no such file exists. Raises AttachmentError.

    folder: what a relative path starts from.
    """
    for spelling in _spellings(mention):
        path = _path_of(spelling, folder)
        try:
            if path is not None and path.exists():
                return _read_file(path, spelling)
        except (OSError, ValueError):
            continue
    return None


def _spellings(mention: str) -> Iterator[str]:
    """The mention, then with less and less of the punctuation at its end."""
    yield mention
    if not mention.endswith('"'):
        while mention[-1:] in _PUNCTUATION and len(mention) > 2:
            mention = mention[:-1]
            yield mention


def _path_of(mention: str, folder: Path) -> Path | None:
    try:
        return folder / expanded(mention[1:].strip('"'))
    except PathError:
        return None


def _read_file(path: Path, mention: str) -> Attachment:
    name = sanitise_line(mention[1:].strip('"'))
    try:
        # Non-blocking, because opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            kind = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(kind):
                raise AttachmentError(f"{name} is {_kind(kind)}. Only text files can be attached.")
            data = file.read(MAX_FILE_BYTES + 1)
            count_bytes = max(len(data), os.fstat(descriptor).st_size)
    except OSError as error:
        if error.errno == errno.EISDIR:
            raise AttachmentError(f"{name} is a folder. Only text files can be attached.") from None
        raise AttachmentError(f"{name} cannot be read: {error.strerror}.") from None
    if len(data) > MAX_FILE_BYTES:
        raise AttachmentError(
            f"{name} is too large ({file_size(count_bytes)}; the limit is {file_size(MAX_FILE_BYTES)}). "
            "Attach a part of it."
        )
    return Attachment(mention, _text(data, name), count_bytes)


def _text(data: bytes, name: str) -> str:
    if not data:
        raise AttachmentError(f"{name} is empty. Only files with text can be attached.")
    if b"\0" in data:
        raise AttachmentError(f"{name} is not text: it contains a zero byte. Only text files can be attached.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AttachmentError(
            f"{name} is not UTF-8 text: byte {error.start} is not valid. Convert it first, for example with iconv."
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device"


def compose_message(text: str, attachments: Sequence[Attachment]) -> str:
    """The typed text, and the files below it."""
    return text + "".join(map(_block, attachments))


def _block(attachment: Attachment) -> str:
    runs = re.findall(r"`{3,}", attachment.text)
    fence = "`" * (max(map(len, runs), default=2) + 1)
    suffix = re.sub(r"[^A-Za-z0-9+_-]", "", PurePath(attachment.mention.strip('@"')).suffix)
    end = "" if attachment.text.endswith("\n") else "\n"
    head = f"{attachment.mention} ({attachment.size_bytes:,} bytes):"
    return f"\n\n{head}\n{fence}{suffix}\n{attachment.text}{end}{fence}"


def split_message(message: str) -> tuple[str, tuple[Attachment, ...]]:
    """The typed text and the files of a message that `compose_message` made; any other is all typed text."""
    for heading in _HEADING.finditer(message):
        text_end = heading.start() - 2
        if message[max(0, text_end) : heading.start()] == "\n\n" and (files := _files_from(message, heading)):
            return message[:text_end], files
    return message, ()


def _files_from(message: str, heading: re.Match[str] | None) -> tuple[Attachment, ...]:
    """The files from the first heading to the end of the message; none if there is any other text between them."""
    files: list[Attachment] = []
    while heading is not None:
        fence = re.compile(rf"^{heading[3]}$", re.MULTILINE).search(message, heading.end())
        if fence is None:
            return ()
        text = message[heading.end() : fence.start()]
        files.append(Attachment(heading[1], text, int(heading[2].replace(",", ""))))
        if fence.end() == len(message):
            return tuple(files)
        is_followed = message.startswith("\n\n", fence.end())
        heading = _HEADING.match(message, fence.end() + 2) if is_followed else None
    return ()
