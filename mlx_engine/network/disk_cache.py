"""Chats on disk: what a reply added is written after it, and read for the first reply after a restart.

Writing has a thread of its own, which the next reply ends: nothing is written while the engine computes. Whatever
is wrong with the disk or with a file, the conversation is read anew.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import mlx.core as mx

from mlx_engine.files.chat_cache_file import (
    CacheFacts,
    CacheFileError,
    RowsPart,
    WriteStoppedError,
    open_cache_file,
    read_head,
    read_tensors,
)
from mlx_engine.files.chat_cache_folder import ChatCacheFolder
from mlx_engine.files.chat_cache_parts import read_parts, write_chat
from mlx_engine.files.model_identity import model_identity
from mlx_engine.network.prefix import SHORTEST_SNAPSHOT_TOKENS, PrefixCache
from mlx_engine.network.stored_rows import StoredRows, check_facts, reach, read_conversation, rows_to_store
from mlx_engine.network.target import Gemma4Target
from mlx_engine.protocol.errors import ModelFolderError

FEWEST_TOKENS = 256
"""A shorter conversation is read anew in less time than anybody notices."""
KnownParts = dict[Path, dict[str, list[tuple[int, int]]]]
"""By head, and by the part's name: the readings that made its rows, one after another; see `_runs`. This process
wrote or read them; what another one wrote is not known, and written again."""
UNUSABLE = (OSError, CacheFileError, MemoryError, RuntimeError, ValueError, OverflowError)
"""What a file can make fail."""


@dataclass(frozen=True, slots=True)
class StoredChat:
    """A chat whose file has a header that can be used."""

    path: Path
    facts: CacheFacts

    def replies(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """The tokens of those of these replies that are known, by their text."""
        known = self.facts.replies
        return {text: known[hashed] for text in texts if (hashed := hash_of(text)) in known}


class DiskCache:
    """The chats of one loaded target. Its methods belong to the engine's thread and raise nothing."""

    def __init__(self, folder: Path | None, limit_bytes: int | None, target: Gemma4Target, model: Path) -> None:
        """folder: None: nothing is kept or read. model: the target's folder."""
        self._target = target
        self._limit_bytes = limit_bytes
        self._folder = None if folder is None or limit_bytes == 0 else ChatCacheFolder(folder)
        self._known: KnownParts = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._identity = ""
        try:
            self._identity = "\0".join(
                [
                    model_identity(model),
                    version("mlx"),
                    version("mlx-lm"),
                    str(mx.device_info().get("device_name")),
                    str(mx.default_device()),
                    str(target.is_compiled),
                ]
            )
        except (ModelFolderError, OSError):  # changed since it was loaded
            self._folder = None

    @property
    def _key(self) -> str:
        """Of everything that the rows depend on, but for the tokens."""
        return hash_of(f"{self._identity}\0{self._target.dtype}")[:32]

    def find(self, chat_id: int | None) -> StoredChat | None:
        """What is stored of a chat. Reads no rows."""
        if self._folder is None or chat_id is None:
            return None
        path = self._folder.file(chat_id, self._key)
        try:
            with open_cache_file(path) as file:
                facts = read_head(path, file).facts
            check_facts(facts, self._target)
        except UNUSABLE:
            return None
        return StoredChat(path, facts) if facts.model == self._key else None

    def recall(self, stored: StoredChat | None, prefix: PrefixCache, prompt: Sequence[int]) -> int:
        """Bring the rows of a stored chat into `prefix` if that spares more of the prompt than what is there.

        Returns the number of tokens spared so.
        """
        if stored is None or self._folder is None:
            return 0
        kept = prefix.reach(prompt)
        spared = reach(stored.facts, prompt, self._target.facts.sliding_window)
        if spared < kept + SHORTEST_SNAPSHOT_TOKENS:
            return 0
        try:
            with open_cache_file(stored.path) as file:
                head = read_head(stored.path, file)
                if head.facts != stored.facts:  # replaced by another process
                    return 0
                tensors, parts = read_tensors(file, head), read_parts(stored.path, head.facts)
                conversation = read_conversation(head, tensors, parts, self._target)
        except UNUSABLE as error:
            _log(error)
            if isinstance(error, OSError | CacheFileError):  # not for want of memory
                self._folder.drop(stored.path)
            return 0
        self._folder.touch(stored.path)
        prefix.adopt(conversation)
        self._known[stored.path] = _known(head.facts.parts, prefix.conversation.readings)
        return spared

    def begin(self, chat_id: int | None) -> None:
        """A reply begins, and a write that is under way ends.

        From now on deleting the chat, which deletes its folder, keeps it from being written.
        """
        self._stop.set()
        if self._folder is not None and chat_id is not None:
            with suppress(OSError):  # writing will fail as well
                self._folder.make(chat_id)

    def keep(self, chat_id: int | None, prefix: PrefixCache, replies: Mapping[str, list[int]]) -> None:
        """Write what was read of a chat, in the background. replies: the tokens of its replies, by their text."""
        conversation = prefix.conversation
        if self._folder is None or chat_id is None or conversation.cache.frontier < FEWEST_TOKENS:
            return
        rows = rows_to_store(conversation)
        hashed = {hash_of(text): ids for text, ids in replies.items()}
        facts = CacheFacts(self._key, rows.tokens, rows.spans, rows.frontiers, replies=hashed)
        path = self._folder.file(chat_id, self._key)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=_write,
            args=(self._folder, self._limit_bytes, path, facts, rows, self._known, self._stop),
            daemon=True,
        )
        self._thread.start()

    def finish(self, patience_s: float) -> None:
        """Wait for a write that is under way; end it if it takes longer."""
        if self._thread:
            self._thread.join(patience_s)
        self._stop.set()


def _write(
    folder: ChatCacheFolder,
    limit_bytes: int | None,
    path: Path,
    facts: CacheFacts,
    rows: StoredRows,
    known: KnownParts,
    stop: threading.Event,
) -> None:
    """Runs in a thread of its own. It only reads memory that the engine's thread has computed."""
    parts = known.get(path, {})

    def has_rows(name: str, begin: int, end: int) -> bool:
        return parts.get(name) == _runs(rows.readings[begin:end])

    try:
        folder.sweep()
        written = write_chat(folder, path, facts, rows.sliding, rows.full, limit_bytes, has_rows, stop.is_set)
        known[path] = _known(written, rows.readings)
    except WriteStoppedError:
        pass
    except FileNotFoundError:
        pass  # the chat was deleted
    except (OSError, ValueError, MemoryError) as error:
        _log(error)


def _known(parts: Sequence[RowsPart], readings: Sequence[int]) -> dict[str, list[tuple[int, int]]]:
    begins = [0, *(part.end for part in parts)]
    return {part.name: _runs(readings[begin : part.end]) for begin, part in zip(begins, parts)}


def _runs(readings: Sequence[int]) -> list[tuple[int, int]]:
    """Each reading, and how many tokens are by it."""
    return [(reading, sum(1 for _ in same)) for reading, same in groupby(readings)]


def _log(error: Exception) -> None:
    print(f"chat cache: {type(error).__name__}: {error}", file=sys.stderr)


def hash_of(text: str) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
