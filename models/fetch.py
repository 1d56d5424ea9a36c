"""The files of a download, one by one: found in the cache, gone on with, checked by hash, put in their place.

Each file grows in the hub's cache as `blobs/<hash>.incomplete` and is hashed while it comes, so a process that is
stopped anywhere leaves a beginning that the next one can check and go on from. A file gets its name only when its
hash is right.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mlx_engine.protocol.errors import ModelFolderError
from models import hub_cache
from models.config import read_config
from models.download import AGAIN, DownloadEvent, Fetched, Finished, Job, Listed, Progress, Waiting, Wanted
from models.errors import PullError
from models.hub import Hub
from models.hub_cache import FileFacts

READ_BYTES = 1 << 20
PACE_WINDOW_S = 5.0

Emit = Callable[[DownloadEvent], None]


class Pace:
    """Bytes per second over the last seconds. `clock`: seconds, never going back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()
        self._count = 0

    def add(self, count: int) -> None:
        """`count` more bytes have come."""
        now = self._clock()
        self._count += count
        self._marks.append((now, self._count))
        while now - self._marks[0][0] > PACE_WINDOW_S:
            self._marks.popleft()

    @property
    def bytes_per_s(self) -> float | None:
        """None until two marks lie apart."""
        if len(self._marks) < 2:
            return None
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        return (last - first) / (ended - began) if ended > began else None


@dataclass(frozen=True, slots=True)
class Item:
    """One file to be had."""

    wanted: Wanted
    commit: str
    name: str
    facts: FileFacts
    folder: Path
    """The repository's in the cache."""

    @property
    def blob(self) -> Path:
        return self.folder / "blobs" / self.facts.blob_name

    @property
    def partial(self) -> Path:
        return self.blob.with_name(f"{self.facts.blob_name}.incomplete")

    @property
    def is_present(self) -> bool:
        return self.blob.is_file() and self.blob.stat().st_size == self.facts.size

    def new_hash(self) -> Any:
        """What the content is checked against: sha256 of large files, git's own hash of small ones."""
        if self.facts.lfs_sha256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.facts.size, usedforsecurity=False)


class Worker:
    """Does one job."""

    def __init__(self, job: Job, emit: Emit, hub: Hub, pace: Pace | None = None) -> None:
        self._job = job
        self._emit = emit
        self._hub = hub
        self._pace = pace or Pace()
        self._total = self._done = 0
        self._reported_at_s = 0.0

    def run(self) -> None:
        """Everything, in order: names, listings, room on the disk, files. Raises PullError or OSError."""
        plans = [self._plan(wanted) for wanted in self._job.wanted]
        items = [item for plan in plans for item in plan]
        self._total = sum(item.facts.size for item in items)
        if self._job.scope != "listing":
            self._check_room(items)
            for wanted, plan in zip(self._job.wanted, plans):
                self._fetch_all(wanted, plan)
        self._emit(Finished())

    def _plan(self, wanted: Wanted) -> list[Item]:
        commit, files = self._retried(wanted.repo, "", lambda: self._hub.listing(wanted))
        cache = Path(self._job.cache)
        folder = hub_cache.repo_folder(cache, wanted.repo)
        chosen = hub_cache.wanted_files(files)
        if "config.json" not in chosen or not any(name.endswith(".safetensors") for name in chosen):
            raise PullError(
                "content", f"{wanted.repo} holds no model in the safetensors format. Choose one that does: "
                "`slipstream models list` shows some."
            )  # fmt: skip
        if self._job.scope == "description":
            chosen = {name: facts for name, facts in chosen.items() if not name.endswith(".safetensors")}
        items = [Item(wanted, commit, name, facts, folder) for name, facts in chosen.items()]
        if self._job.scope != "listing":
            hub_cache.write_listing(folder, commit, files)
        present = sum(item.facts.size if item.is_present else _size(item.partial) for item in items)
        total = sum(item.facts.size for item in items)
        self._emit(Listed(wanted.repo, commit, files, total_bytes=total, present_bytes=present))
        return items

    def _check_room(self, items: list[Item]) -> None:
        blobs = {item.blob: item for item in items}.values()
        missing = sum(item.facts.size - _size(item.partial) for item in blobs if not item.is_present)
        place = Path(self._job.cache)
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free
        if missing and missing + self._job.reserve_bytes > free:
            raise PullError(
                "disk",
                f"{place} has {free / 1e9:.1f} GB free; {missing / 1e9:.1f} GB are still to come and "
                f"{self._job.reserve_bytes / 1e9:.1f} GB should stay free. Make room (`slipstream models rm`), "
                "or set HF_HOME to another disk.",
            )

    def _fetch_all(self, wanted: Wanted, items: list[Item]) -> None:
        for item in items:
            self._fetch(item)
            hub_cache.link_file(item.folder, item.commit, item.name, item.facts.blob_name)
            if item.name == "config.json":
                self._check_kind(item)
        if self._job.scope == "everything" and items:
            folder, commit = items[0].folder, items[0].commit
            # Not before the last file: until then the branch means the commit that is whole.
            hub_cache.write_ref(folder, wanted.revision or "main", commit)
            self._emit(Fetched(wanted.repo, commit, str(folder / "snapshots" / commit)))

    def _check_kind(self, item: Item) -> None:
        """Refuse what Slipstream cannot run before its weights are fetched."""
        try:
            read_config(item.folder / "snapshots" / item.commit)
        except ModelFolderError as error:
            raise PullError("content", f"{item.wanted.repo}: {error}") from None

    def _fetch(self, item: Item) -> None:
        with self._lock(item):
            if not item.is_present:
                for is_last in (False, True):
                    if self._fetch_once(item):
                        break
                    item.partial.unlink()
                    if is_last:
                        raise PullError(
                            "content", f"{item.name} of {item.wanted.repo} came twice with another content than "
                            "the hub lists. It was deleted. Try another network: something changes files."
                        )  # fmt: skip
                    why = "what came is not what the hub lists; fetching it once more"
                    self._emit(Waiting(item.wanted.repo, item.name, why, 0.0))
                # Not `replace_file`: the partial file has grown over several runs and stays when one is stopped.
                os.replace(item.partial, item.blob)
            else:
                self._done += item.facts.size
        self._report(item, item.facts.size, is_due=True)

    @contextmanager
    def _lock(self, item: Item) -> Iterator[None]:
        """The lock that other tools of the cache take as well: one process fetches, the others wait for it."""
        path = Path(self._job.cache) / ".locks" / item.folder.name / f"{item.facts.blob_name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        item.blob.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, mode=0o664)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            self._emit(Waiting(item.wanted.repo, item.name, "another download has this file in hand", None))
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _fetch_once(self, item: Item) -> bool:
        """Bring the partial file to its full size; whether its content is what the hub lists."""
        done_before = self._done
        with open(item.partial, "r+b" if item.partial.exists() else "w+b", buffering=0) as file:
            self._report(item, 0, is_due=True)
            digest = self._take_up(item, file)
            self._retried(item.wanted.repo, item.name, lambda: self._append(item, file, digest))
            os.fsync(file.fileno())
        if digest[0].hexdigest() == item.facts.blob_name:
            return True
        self._done = done_before
        return False

    def _take_up(self, item: Item, file: Any) -> list[Any]:
        """Hash what an earlier download left; [the hash so far]."""
        digest = item.new_hash()
        if _size(item.partial) > item.facts.size:
            file.truncate(0)
        while block := file.read(READ_BYTES):
            digest.update(block)
            self._done += len(block)
            self._report(item, file.tell(), is_checking=True)
        return [digest]

    def _append(self, item: Item, file: Any, digest: list[Any]) -> None:
        """Fetch from the end of the file on. Raises PullError when the connection gives no more."""
        start = file.tell()
        if start == item.facts.size:
            return
        with self._hub.content(item.wanted, item.commit, item.name, start) as (begin, blocks):
            if begin != start:
                # No ranges here: what is there comes again.
                self._done -= start
                file.seek(0)
                file.truncate(0)
                digest[0] = item.new_hash()
            for block in blocks:
                block = block[: item.facts.size - file.tell()]
                _write(file, block)
                digest[0].update(block)
                self._done += len(block)
                self._pace.add(len(block))
                self._report(item, file.tell())
                if file.tell() == item.facts.size:
                    return
        raise PullError("network", f"{item.name} of {item.wanted.repo} ended too early. {AGAIN}")

    def _retried(self, repo: str, name: str, attempt: Callable[[], Any]) -> Any:
        """What `attempt` gives, tried again after failures that may pass; bytes that came give all tries back."""
        waits = list(self._job.retry_waits_s)
        while True:
            done_before = self._done
            try:
                return attempt()
            except PullError as error:
                if error.reason not in ("busy", "server", "network"):
                    raise
                if self._done > done_before:
                    waits = list(self._job.retry_waits_s)
                if not waits:
                    raise
                wait_s = max(waits.pop(0), getattr(error, "retry_after_s", None) or 0.0)
                self._emit(Waiting(repo, name, str(error).removesuffix(AGAIN).strip(), wait_s))
                time.sleep(wait_s)

    def _report(self, item: Item, file_done: int, is_checking: bool = False, is_due: bool = False) -> None:
        now = time.monotonic()
        if not is_due and now - self._reported_at_s < self._job.report_every_s:
            return
        self._reported_at_s = now
        rate = self._pace.bytes_per_s
        self._emit(
            Progress(
                repo=item.wanted.repo,
                file=item.name,
                file_done_bytes=file_done,
                file_total_bytes=item.facts.size,
                done_bytes=self._done,
                total_bytes=self._total,
                rate_bytes_per_s=rate,
                left_s=(self._total - self._done) / rate if rate else None,
                is_checking=is_checking,
            )
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write(file: Any, block: bytes) -> None:
    """All of `block`: a raw file may take less, when the disk is nearly full."""
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]
