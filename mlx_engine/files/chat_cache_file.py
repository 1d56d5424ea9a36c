"""One file of the chat cache: a safetensors file whose header and data carry their hashes.

Written piece by piece, so that a writer can be stopped between two, and put in place in one step. Whatever is
wrong with a file when it is read raises CacheFileError: the caller then reads the conversation anew.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from mlx_engine.files.atomic import PRIVATE
from mlx_engine.files.folder_files import parse_json
from mlx_engine.files.safetensors_header import LENGTH_BYTES, Tensor, header_length, parse_header
from mlx_engine.protocol.errors import ModelFolderError

FORMAT = 3
PIECE_BYTES = 1 << 20
"""A writer that is stopped ends after at most this many bytes."""
NO_HASH = "0" * 64
TEMPORARY = ".part"


class CacheFileError(Exception):
    """The file cannot be used."""


class WriteStoppedError(Exception):
    """The writer was asked to stop; nothing was changed."""


class RowsPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file with the rows of some of the tokens, behind those of the part before it."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    end: int
    """Position behind its last row."""
    data_hash: str


class CacheFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file says about its rows."""

    model: str
    """The key of the model that computed them."""
    tokens: list[int]
    """The conversation, as far as it was read; a part has none."""
    spans: list[tuple[int, int]]
    """Positions of which the sliding layers' rows are here: apart from each other, in order."""
    frontiers: list[tuple[int, int]]
    """Where the conversation can be continued, and from where on its sliding rows are needed; the last one is the
    end."""
    parts: list[RowsPart] = []
    """Where the rows are of the layers that keep all of them; a part itself has none."""
    replies: dict[str, list[int]] = {}
    """The tokens of its replies as they were generated, by the hash of their text."""
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to write."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Sequence[memoryview]
    """Its bytes, in order."""

    def rows(self, begin: int, end: int) -> NewTensor:
        """These positions of the third axis, of a tensor that has a piece for each index of the second."""
        batch, heads, count, dim = self.shape
        size = len(self.pieces[0]) // count
        pieces = [piece[begin * size : end * size] for piece in self.pieces]
        return NewTensor(self.name, self.dtype, (batch, heads, end - begin, dim), pieces)

    @property
    def size_bytes(self) -> int:
        """Of all pieces."""
        return sum(piece.nbytes for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class CacheHead:
    """A checked header."""

    facts: CacheFacts
    tensors: dict[str, Tensor]
    data_begin: int
    data_hash: str


def reached(point: str) -> None:
    """Called at each named point of a write; tests end the process there."""


def write_cache_file(
    path: Path,
    facts: CacheFacts,
    tensors: Sequence[NewTensor],
    stamp_ns: int,
    is_stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Replace the file at `path`; its folder must exist. stamp_ns: its time of change, which orders the files.

    Returns the hash of its data. Raises OSError, or WriteStoppedError once `is_stopped` is true; the file at
    `path` is then as it was.
    """
    temporary = path.parent / f".{path.stem}.{secrets.token_hex(4)}{TEMPORARY}"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    try:
        with open(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # shows that its writer is alive
            reached("created")
            header = _header(facts, tensors, NO_HASH)
            _write(file, len(header).to_bytes(LENGTH_BYTES, "little") + header)
            reached("header")
            data_hash = hashlib.sha256()
            for piece in pieces_of(tensors):
                if is_stopped():
                    raise WriteStoppedError
                data_hash.update(piece)
                _write(file, piece)
                reached("piece")
            reached("data")
            file.seek(LENGTH_BYTES)
            _write(file, _header(facts, tensors, data_hash.hexdigest()))
            reached("hashed")
            os.utime(descriptor, ns=(stamp_ns, stamp_ns))
            os.fsync(descriptor)
            reached("synced")
            os.replace(temporary, path)
            reached("replaced")
            return data_hash.hexdigest()
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def pieces_of(tensors: Sequence[NewTensor]) -> Iterator[memoryview]:
    """All bytes in order, at most PIECE_BYTES at once."""
    for tensor in tensors:
        for view in tensor.pieces:
            for begin in range(0, len(view), PIECE_BYTES):
                yield view[begin : begin + PIECE_BYTES]


def _write(file: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _header(facts: CacheFacts, tensors: Sequence[NewTensor], data_hash: str) -> bytes:
    """Equally long whatever the hash."""
    metadata = {
        "head_sha256": NO_HASH,
        "data_sha256": data_hash,
        "facts": msgspec.json.encode(facts).decode(),
    }
    entries: dict[str, object] = {"__metadata__": metadata}
    begin = 0
    for tensor in tensors:
        end = begin + tensor.size_bytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (begin, end)}
        begin = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return signed(header + b" " * (-len(header) % LENGTH_BYTES))


def signed(header: bytes) -> bytes:
    """A header with its own hash in place of NO_HASH."""
    return header.replace(_mark(NO_HASH), _mark(hashlib.sha256(header).hexdigest()), 1)


def _mark(head_hash: str) -> bytes:
    # Within the facts its quotation marks are escaped.
    return f'"head_sha256":"{head_hash}"'.encode()


@contextmanager
def open_cache_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for the readers below. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with open(descriptor, "rb", buffering=0) as file:
        yield file


def read_head(path: Path, file: BinaryIO) -> CacheHead:
    """The header of an open file. Raises OSError, CacheFileError."""
    size = os.fstat(file.fileno()).st_size
    try:
        length = header_length(path, file.read(LENGTH_BYTES), size)
        header = file.read(length)
        tensors = parse_header(path, header, size - LENGTH_BYTES - length)
        metadata = parse_json(header, path, "its header").get("__metadata__")
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise CacheFileError("no metadata")
        head_hash = metadata["head_sha256"]
        if hashlib.sha256(header.replace(_mark(head_hash), _mark(NO_HASH), 1)).hexdigest() != head_hash:
            raise CacheFileError("its header has changed")
        facts = msgspec.json.decode(metadata["facts"], type=CacheFacts)
        data_hash = metadata["data_sha256"]
    except (ModelFolderError, KeyError, ValueError, msgspec.MsgspecError) as error:
        raise CacheFileError(str(error)) from None
    if facts.format != FORMAT:
        raise CacheFileError(f"it has format {facts.format}")
    return CacheHead(facts, tensors, LENGTH_BYTES + length, data_hash)


def read_tensors(file: BinaryIO, head: CacheHead) -> Iterator[tuple[str, bytearray]]:
    """Each tensor's name and bytes, in the order of the file.

    Only once the last one was asked for is it certain that they are right. Raises OSError, CacheFileError,
    MemoryError.
    """
    file.seek(head.data_begin)
    data_hash = hashlib.sha256()
    for name, tensor in sorted(head.tensors.items(), key=lambda item: item[1].begin):
        data = bytearray(tensor.size_bytes)
        view = memoryview(data)
        while view:
            count = file.readinto(view[:PIECE_BYTES])  # type: ignore[attr-defined]
            if not count:
                raise CacheFileError("it is shorter than its header says")
            data_hash.update(view[:count])
            view = view[count:]
        yield name, data
    if data_hash.hexdigest() != head.data_hash:
        raise CacheFileError("its data have changed")
