"""Text files in a message: found by `@path`, read, put into the message, and found again in it. Knows no screen.

A message reads as it was typed; each file follows below it, named, in a fence longer than any in it.
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

MOST_BYTES = 1 << 20
"""Some 300,000 tokens, more than any context holds."""

_MENTION = re.compile(r"""(?:\A|(?<=\s))@(?:"([^"\n]+)"|([^\s"]+))""")
_BEHIND = ".,;:!?)]}'"
"""What may stand behind a path without being part of it."""
_HEAD = re.compile(r"^(@[^\n]+) \(([0-9]{1,3}(?:,[0-9]{3}){0,3}) bytes\):\n(`{3,})[^`\n]*\n", re.MULTILINE)


class AttachmentError(SlipstreamError):
    """A file cannot be attached; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A text file that goes with a message."""

    mention: str
    """As it was typed, `@` first."""
    text: str
    size_bytes: int
    """Of the file."""

    @property
    def figures(self) -> str:
        """Name, size and lines, for the eye."""
        return f"{self.name} · {self.sizes}"

    @property
    def name(self) -> str:
        """As it was typed, for the eye."""
        return sanitise_line(self.mention)

    @property
    def sizes(self) -> str:
        """Size and lines, for the eye."""
        lines = self.text.count("\n") + (not self.text.endswith("\n"))
        return f"{file_size(self.size_bytes)} · {lines:,} line{'s' * (lines != 1)}"


def file_size(count_bytes: int) -> str:
    """`812 bytes`, `3.2 kB`, `48 MB`."""
    if count_bytes < 1000:
        return f"{count_bytes} byte{'s' * (count_bytes != 1)}"
    return f"{count_bytes / 1000:.1f} kB" if count_bytes < 1e6 else size(count_bytes).strip()


def mentions(text: str) -> list[str]:
    """Every `@path` in a text, once, in order, as it is typed."""
    return list(dict.fromkeys(match[0] for match in _MENTION.finditer(text)))


def written(path: str) -> str:
    """The mention of a path."""
    return f'@"{path}"' if re.search(r"\s", path) or path.endswith(tuple(_BEHIND)) else f"@{path}"


def find(mention: str, folder: Path) -> Attachment | None:
    """The file that a mention names, relative ones from `folder`; None: there is none. Raises AttachmentError."""
    for spelled in _spellings(mention):
        path = _path_of(spelled, folder)
        try:
            if path is not None and path.exists():
                return read(path, spelled)
        except (OSError, ValueError):
            continue
    return None


def _spellings(mention: str) -> Iterator[str]:
    yield mention
    if not mention.endswith('"'):
        while mention[-1:] in _BEHIND and len(mention) > 2:
            mention = mention[:-1]
            yield mention


def _path_of(mention: str, folder: Path) -> Path | None:
    try:
        return folder / expanded(mention[1:].strip('"'))
    except PathError:
        return None


def read(path: Path, mention: str) -> Attachment:
    """Read a file, whole. Raises AttachmentError."""
    name = sanitise_line(mention[1:].strip('"'))
    try:
        # A pipe without a writer must not be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            kind = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(kind):
                raise AttachmentError(f"{name} is {_kind(kind)}: only text files can be attached.")
            data = file.read(MOST_BYTES + 1)
            count_bytes = max(len(data), os.fstat(descriptor).st_size)
    except OSError as error:
        is_folder = error.errno == errno.EISDIR
        why = "is a folder: only text files can be attached" if is_folder else f"cannot be read: {error.strerror}"
        raise AttachmentError(f"{name} {why}.") from None
    if len(data) > MOST_BYTES:
        most = file_size(MOST_BYTES)
        raise AttachmentError(
            f"{name} has {file_size(count_bytes)}; at most {most} can be attached. Attach a part."
        )
    return Attachment(mention, _text(data, name), count_bytes)


def _text(data: bytes, name: str) -> str:
    if not data:
        raise AttachmentError(f"{name} is empty: there is nothing to attach.")
    if b"\0" in data:
        raise AttachmentError(f"{name} is not text: it has a zero byte. Only text files can be attached.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} cannot be read"
        raise AttachmentError(
            f"{name} is not UTF-8 text: {where}. Convert it first, for example with iconv."
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device"


def compose(text: str, attachments: Sequence[Attachment]) -> str:
    """The message: what was typed, and the files below it."""
    return text + "".join(map(_block, attachments))


def _block(attachment: Attachment) -> str:
    runs = re.findall(r"`{3,}", attachment.text)
    fence = "`" * (max(map(len, runs), default=2) + 1)
    suffix = re.sub(r"[^A-Za-z0-9+_-]", "", PurePath(attachment.mention.strip('@"')).suffix)
    end = "" if attachment.text.endswith("\n") else "\n"
    head = f"{attachment.mention} ({attachment.size_bytes:,} bytes):"
    return f"\n\n{head}\n{fence}{suffix}\n{attachment.text}{end}{fence}"


def split(message: str) -> tuple[str, tuple[Attachment, ...]]:
    """What was typed, and the files, of a message that `compose` made; any other is all typed."""
    for head in _HEAD.finditer(message):
        begin = head.start() - 2
        if message[max(0, begin) : head.start()] == "\n\n" and (found := _blocks(message, head)):
            return message[:begin], found
    return message, ()


def _blocks(message: str, head: re.Match[str]) -> tuple[Attachment, ...]:
    """The files from `head` to the end of the message; none if anything else is there."""
    found: list[Attachment] = []
    at: re.Match[str] | None = head
    while at is not None:
        close = re.compile(rf"^{at[3]}$", re.MULTILINE).search(message, at.end())
        if close is None:
            return ()
        found.append(Attachment(at[1], message[at.end() : close.start()], int(at[2].replace(",", ""))))
        if close.end() == len(message):
            return tuple(found)
        at = _HEAD.match(message, close.end() + 2) if message.startswith("\n\n", close.end()) else None
    return ()
