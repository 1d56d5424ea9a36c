"""A chat over several files: parts with the rows that only ever grow, and a head with everything else.

A reply adds a part with its own rows and replaces the head, which names the parts and is put in place last: until
then the old head and its parts stand. A part that is not longer than what follows it is written again together
with that, so that a chat has few parts, and no row is written often.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from mlx_engine.files.chat_cache_file import (
    CacheFacts,
    CacheFileError,
    CacheHead,
    NewTensor,
    RowsPart,
    open_cache_file,
    reached,
    read_head,
    read_tensors,
    write_cache_file,
)
from mlx_engine.files.chat_cache_folder import ChatCacheFolder, part_file, part_files

MOST_PART_TOKENS = 2048
"""An edit far back makes this much before it be written again at most."""


def write_chat(
    folder: ChatCacheFolder,
    path: Path,
    facts: CacheFacts,
    tensors: Sequence[NewTensor],
    rows: Sequence[NewTensor],
    limit_bytes: int | None,
    has_rows: Callable[[str, int, int], bool],
    is_stopped: Callable[[], bool] = lambda: False,
) -> list[RowsPart]:
    """Bring the files at `path` up to date, or leave them if there is no room; returns the parts that are named.

    facts: without parts. tensors: of the head. rows: of all tokens, along the third axis. has_rows: whether the
    part of this name was written with these rows, from begin to end. Raises OSError, or WriteStoppedError once
    `is_stopped` is true; what was at `path` can then still be read.
    """
    parts = _parts_that_stay(path, facts, has_rows)
    stay = len(parts)
    size_bytes = sum(tensor.size_bytes for tensor in (*tensors, *rows))
    if not folder.make_room(size_bytes, limit_bytes, path):
        return []
    try:
        for begin in range(_end(parts), len(facts.tokens), MOST_PART_TOKENS):
            end = min(begin + MOST_PART_TOKENS, len(facts.tokens))
            name = secrets.token_hex(8)
            data_hash = write_cache_file(
                part_file(path, name),
                CacheFacts(facts.model, [], [], []),
                [tensor.rows(begin, end) for tensor in rows],
                folder.next_stamp_ns(),
                is_stopped,
            )
            parts.append(RowsPart(name, end, data_hash))
        reached("parts")
        complete = msgspec.structs.replace(facts, parts=parts)
        write_cache_file(path, complete, tensors, folder.next_stamp_ns(), is_stopped)
    except BaseException:
        _delete(part_file(path, part.name) for part in parts[stay:])
        raise
    reached("head")
    named = {part_file(path, part.name) for part in parts}
    _delete(other for other in part_files(path) if other not in named)
    reached("cleared")
    return parts


def read_parts(path: Path, facts: CacheFacts) -> Iterator[tuple[CacheHead, Iterator[tuple[str, bytearray]]]]:
    """Of each part its header, and its tensors as `read_tensors` gives them. facts: of the head at `path`.

    Raises OSError, CacheFileError, MemoryError.
    """
    for part in facts.parts:
        file_path = part_file(path, part.name)
        with open_cache_file(file_path) as file:
            head = read_head(file_path, file)
            if head.data_hash != part.data_hash:
                raise CacheFileError("a part of it is another one")
            yield head, read_tensors(file, head)


def _parts_that_stay(path: Path, facts: CacheFacts, has_rows: Callable[[str, int, int], bool]) -> list[RowsPart]:
    """Those on disk that have the first of the rows, but for short ones at the end."""
    try:
        with open_cache_file(path) as file:
            stored = read_head(path, file).facts
    except (OSError, CacheFileError):
        return []
    parts: list[RowsPart] = []
    for part in stored.parts:
        begin, end = _end(parts), part.end
        if not begin < end <= len(facts.tokens) or stored.tokens[begin:end] != facts.tokens[begin:end]:
            break
        if not part_file(path, part.name).is_file() or not has_rows(part.name, begin, end):
            break
        parts.append(part)
    while parts:
        length, following = parts[-1].end - _end(parts[:-1]), len(facts.tokens) - parts[-1].end
        if not following or length > min(following, MOST_PART_TOKENS - 1):
            break
        parts.pop()
    return parts


def _end(parts: Sequence[RowsPart]) -> int:
    return parts[-1].end if parts else 0


def _delete(paths: Iterator[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink()
