"""Text files in a message: `@path` mentions, and reading the files."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from unicodedata import normalize

from app.text.figures import size
from app.text.folding import folded
from app.text.sanitise import sanitise_line
from mlx_engine.protocol.errors import SlipstreamError
from models.errors import PathError
from models.paths import expanded

MAX_FILE_BYTES = 1 << 20
"""Some 300,000 tokens, which is more than the context of any model."""

MAX_SHOWN_CHARACTERS = 80
"""Of the name of a missing file."""
MAX_SUGGESTIONS = 3
MAX_FOLDER_ENTRIES = 5000
"""More entries of a folder are not compared with the name of a missing file."""

_MENTION = re.compile(r"""(?:\A|(?<=\s))@(?:"([^"\n]+)"|([^\s"]+))""")
_PUNCTUATION = ".,;:!?)]}'"
"""Not part of a path at the end of a mention, unless a file has that name."""
MAX_FINAL_MARKS = 16
_PATTERN = re.compile(r"[*?]|\[[^\]]+\]")
"""Part of a shell pattern, which is not expanded here."""


class AttachmentError(SlipstreamError):
    """A file cannot be attached."""


class MissingFileError(AttachmentError):
    """A mention names no file."""


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
    """Every different `@path` in a text, in order, as it is typed. An @ before punctuation alone is none.

    `@*` and `@..` are mentions, of a pattern and a folder.
    """
    found = (match[0] for match in _MENTION.finditer(text))
    return list(dict.fromkeys(each for each in found if each.endswith('"') or re.search(r"[\w/~*]|^@\.\.$", each)))


def mention_of(path: str) -> str:
    """`@path`, in quotes if it needs them."""
    return f'@"{path}"' if re.search(r"\s", path) or path.endswith(tuple(_PUNCTUATION)) else f"@{path}"


def read_mention(mention: str, folder: Path) -> Attachment:
    """Read the file that a mention names. Raises AttachmentError, which suggests names if there is no such file.

    folder: what a relative path starts from.
    """
    for spelling in spellings(mention):
        path = _path_of(spelling, folder)
        try:
            found = path and _on_disk(path)
        except (OSError, ValueError):
            continue
        if found:
            return _read_file(found, spelling)
    raise MissingFileError(_why_missing(mention, folder))


def read_mentions(text: str, folder: Path) -> list[Attachment]:
    """Read every file that a text mentions, in order. Raises AttachmentError if one cannot be attached."""
    files = [read_mention(mention, folder) for mention in mentions(text)]
    return list({file.mention: file for file in files}.values())


def _on_disk(path: Path) -> Path | None:
    """The path if it exists, or that of the same name in the other Unicode form."""
    if os.path.lexists(path):
        return path
    name = normalize("NFC", path.name)
    if name.isascii() or not path.parent.is_dir():
        return None
    return next((path.parent / each for each in _names_in(path.parent) if normalize("NFC", each) == name), None)


def _names_in(folder: Path) -> list[str]:
    """The names in a folder, those of folders with a slash; hidden ones last. Empty if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name + "/" * entry.is_dir() for entry in islice(entries, MAX_FOLDER_ENTRIES)]
    except OSError:
        return []
    return sorted((name for name in names if name.isprintable() and '"' not in name), key=_hidden_last)


def _hidden_last(name: str) -> tuple[bool, str]:
    return name.startswith("."), folded(name)


def _why_missing(mention: str, folder: Path) -> str:
    """Why a mention names no file, and which ones may have been meant."""
    *_, spelling = spellings(mention)
    path = _path_of(spelling, folder)
    typed = spelling[1:].strip('"')
    there_is_none = f"There is no file {_shown(typed)}."
    if path is None or not typed:
        return there_is_none
    typed_folder = typed[: typed.rfind("/") + 1]
    if _PATTERN.search(path.name):
        matching = _listed(typed_folder, [each for each in _names_in(path.parent) if fnmatch(each, path.name)])
        example = f", such as {matching}" if matching else ""
        return f"{there_is_none} Patterns are not expanded: attach each file by its name{example}."
    near = _listed(typed_folder, nearest_names(path.name, path.parent))
    return f"{there_is_none} Did you mean {near}?" if near else there_is_none


def nearest_names(name: str, folder: Path) -> list[str]:
    """The names in a folder that are most like `name`, best first; those of folders end in a slash."""
    names = {folded(each.rstrip("/")): each for each in reversed(_names_in(folder))}
    name = folded(name)
    near = get_close_matches(name, names, n=MAX_SUGGESTIONS)
    containing = [each for each in reversed(names) if name in each]
    return [names[each] for each in dict.fromkeys((*near, *containing))][:MAX_SUGGESTIONS]


def _listed(folder: str, names: Sequence[str]) -> str:
    """`@a, @b or @c`; empty without names. folder: as it was typed, with its slash."""
    *others, last = [sanitise_line(mention_of(folder + name)) for name in names[:MAX_SUGGESTIONS]] or [""]
    return f"{', '.join(others)} or {last}" if others else last


def _shown(name: str) -> str:
    line = sanitise_line(name)
    return line if len(line) <= MAX_SHOWN_CHARACTERS else f"{line[:MAX_SHOWN_CHARACTERS]}…"


def spellings(mention: str) -> Iterator[str]:
    """The mention, then with less and less of the punctuation at its end.

    Of a long run of punctuation, no more than the first marks can be part of a name.
    """
    yield mention
    if not mention.endswith('"'):
        name = mention[:2] + mention[2:].rstrip(_PUNCTUATION)
        end = min(len(mention) - 1, len(name) + MAX_FINAL_MARKS)
        yield from (mention[:length] for length in range(end, len(name) - 1, -1))


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
            if stat.S_ISDIR(kind):
                raise AttachmentError(_why_not_folder(path, name, mention))
            if not stat.S_ISREG(kind):
                what = "a pipe" if stat.S_ISFIFO(kind) else "a device"
                raise AttachmentError(f"{name} is {what}. Only text files can be attached.")
            data = file.read(MAX_FILE_BYTES + 1)
            count_bytes = max(len(data), os.fstat(descriptor).st_size)
    except OSError as error:
        if error.errno == errno.EISDIR:
            raise AttachmentError(_why_not_folder(path, name, mention)) from None
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


def _why_not_folder(path: Path, name: str, mention: str) -> str:
    files = [each for each in _names_in(path) if not each.endswith("/")]
    typed_folder = f"{mention[1:].strip(chr(34)).rstrip('/')}/"
    example = f" Attach its files one by one, such as {_listed(typed_folder, files)}." if files else ""
    return f"{name} is a folder. Only text files can be attached.{example}"
