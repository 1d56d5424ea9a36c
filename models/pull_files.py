"""Pulls the files of a job one by one: looks in the cache, resumes, checks the hash, and gives the file its name.

Each file grows in the hub's cache as `blobs/<hash>.incomplete` and is hashed as it arrives. A process that is
stopped anywhere leaves a partial file that the next one can check and resume. A file gets its name only when its
hash is right.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mlx_engine.files import config_file
from mlx_engine.files.flush import flush_to_disk
from mlx_engine.files.quantization import foreign_method, refused_method
from mlx_engine.files.weight_files import INDEX, choose_weight_files
from mlx_engine.protocol.errors import ModelFolderError
from models import hub_cache
from models.bundles import PART_NAMES, TARGET_NAME
from models.config import read_config
from models.errors import PullError
from models.hub import Hub
from models.hub_cache import FileFacts
from models.pull import (
    AGAIN,
    Listed,
    PullEvent,
    PullFinished,
    PullJob,
    PullProgress,
    RepoPulled,
    RepoRevision,
    Waiting,
)

READ_BYTES = 1 << 20
TARGET_CONFIG = f"{TARGET_NAME}/config.json"
"""Of a repository that bundles a pair."""
PACE_WINDOW_S = 5.0
MAX_SHOWN_FOLDERS = 3

Emit = Callable[[PullEvent], None]


class Pace:
    """Bytes per second over the last seconds. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()
        self._count = 0

    def add(self, count: int) -> None:
        """Count bytes that have just arrived."""
        now = self._clock()
        self._count += count
        self._marks.append((now, self._count))
        while now - self._marks[0][0] > PACE_WINDOW_S:
            self._marks.popleft()

    @property
    def bytes_per_s(self) -> float | None:
        """None until two measurements are apart in time."""
        if len(self._marks) < 2:
            return None
        (start_s, start_count), (end_s, end_count) = self._marks[0], self._marks[-1]
        return (end_count - start_count) / (end_s - start_s) if end_s > start_s else None


@dataclass(frozen=True, slots=True)
class RepoFile:
    """One file of a repository, to be pulled."""

    source: RepoRevision
    commit: str
    name: str
    facts: FileFacts
    folder: Path
    """The repository's folder in the cache."""

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
        """The hash that checks the content: sha256 for large files, git's hash for small ones."""
        if self.facts.lfs_sha256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.facts.size, usedforsecurity=False)


class Puller:
    """Does one job."""

    def __init__(
        self,
        job: PullJob,
        emit: Emit,
        hub: Hub,
        pace: Pace | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._job = job
        self._emit = emit
        self._hub = hub
        self._pace = pace or Pace()
        self._sleep = sleep
        self._total = self._done = 0
        self._reported_at_s = 0.0

    def run(self) -> None:
        """List every repository, check the free disk space, then pull the files. Raises PullError or OSError."""
        files_by_repo = [self._list(source) for source in self._job.repos]
        files = [file for own in files_by_repo for file in own]
        self._total = sum(file.facts.size for file in files)
        if self._job.scope != "listing":
            self._check_room(files)
            for source, own in zip(self._job.repos, files_by_repo):
                self._pull_repo(source, own)
        self._emit(PullFinished())

    def _list(self, source: RepoRevision) -> list[RepoFile]:
        commit, listing = self._retried(source.repo, "", lambda: self._hub.listing(source))
        cache = Path(self._job.cache)
        folder = hub_cache.repo_folder(cache, source.repo)
        chosen = hub_cache.files_to_pull(listing)
        is_described = bool({"config.json", TARGET_CONFIG} & chosen.keys())
        if not is_described or not any(name.endswith(".safetensors") for name in chosen):
            raise PullError("content", _why_no_model(source.repo, listing))
        _check_weights(chosen, source.repo)
        if self._job.scope == "description":
            chosen = {name: facts for name, facts in chosen.items() if not name.endswith(".safetensors")}
        files = [RepoFile(source, commit, name, facts, folder) for name, facts in chosen.items()]
        if self._job.scope != "listing":
            hub_cache.write_listing(folder, commit, listing)
        present = sum(file.facts.size if file.is_present else _size(file.partial) for file in files)
        total = sum(file.facts.size for file in files)
        self._emit(Listed(source.repo, commit, listing, total_bytes=total, present_bytes=present))
        return files

    def _check_room(self, files: list[RepoFile]) -> None:
        blobs = {file.blob: file for file in files}.values()
        missing = sum(file.facts.size - _size(file.partial) for file in blobs if not file.is_present)
        cache = Path(self._job.cache)
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
        if missing and missing + self._job.reserve_bytes > free and not self._job.is_insisting:
            # macOS frees more when it is needed (purgeable space, local snapshots), which no call of POSIX counts.
            raise PullError(
                "room",
                f"{cache} has {free / 1e9:.1f} GB free, but {missing / 1e9:.1f} GB are still to be pulled and "
                f"{self._job.reserve_bytes / 1e9:.1f} GB should stay free. Make room (`slipstream models rm`), "
                "or set HF_HOME to another disk. A Mac may free more by itself: to pull anyway, start the same "
                "pull again in the chat, or use `slipstream models pull --insist`.",
            )

    def _pull_repo(self, source: RepoRevision, files: list[RepoFile]) -> None:
        for file in files:
            self._pull(file)
            hub_cache.link_file(file.folder, file.commit, file.name, file.facts.blob_name)
            if file.name in ("config.json", TARGET_CONFIG):
                self._check_model_type(file)
        if self._job.scope == "everything" and files:
            folder, commit = files[0].folder, files[0].commit
            # Only after the last file: until then the branch stays at a commit that is complete.
            hub_cache.write_ref(folder, source.revision or "main", commit)
            self._emit(RepoPulled(source.repo, commit, str(folder / "snapshots" / commit)))

    def _check_model_type(self, file: RepoFile) -> None:
        """Refuse a model that Slipstream cannot run before its weights are pulled."""
        folder = (file.folder / "snapshots" / file.commit / file.name).parent
        try:
            read_config(folder)
            if method := foreign_method(config_file.read_config(folder)):
                raise refused_method(folder, method)
        except ModelFolderError as error:
            raise PullError("content", f"{file.source.repo}: {error}") from None

    def _pull(self, file: RepoFile) -> None:
        with self._lock(file):
            if not file.is_present:
                for is_last in (False, True):
                    if self._pull_once(file):
                        break
                    file.partial.unlink()
                    if is_last:
                        raise PullError(
                            "content", f"{file.name} of {file.source.repo} arrived twice with other content than "
                            "the hub lists. It was deleted. Try another network: this one changes files."
                        )  # fmt: skip
                    why = "the content is not what the hub lists; pulling it once more"
                    self._emit(Waiting(file.source.repo, file.name, why, 0.0))
                # Not `replace_file`: the partial file has grown over several runs and stays when one is stopped.
                os.replace(file.partial, file.blob)
            else:
                self._done += file.facts.size
        self._report(file, file.facts.size, is_due=True)

    @contextmanager
    def _lock(self, file: RepoFile) -> Iterator[None]:
        """The lock that other tools of the cache take as well: one process pulls the file, the others wait."""
        path = Path(self._job.cache) / ".locks" / file.folder.name / f"{file.facts.blob_name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        file.blob.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, mode=0o664)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            self._emit(Waiting(file.source.repo, file.name, "another process is pulling this file", None))
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _pull_once(self, file: RepoFile) -> bool:
        """Bring the partial file to its full size. Returns whether its content is what the hub lists."""
        done_before = self._done
        with open(file.partial, "r+b" if file.partial.exists() else "w+b", buffering=0) as stream:
            self._report(file, 0, is_due=True)
            digest = self._hash_partial(file, stream)
            self._retried(file.source.repo, file.name, lambda: self._append(file, stream, digest))
            flush_to_disk(stream.fileno())
        if digest[0].hexdigest() == file.facts.blob_name:
            return True
        self._done = done_before
        return False

    def _hash_partial(self, file: RepoFile, stream: Any) -> list[Any]:
        """Hash what an earlier pull left; [the hash so far]."""
        digest = file.new_hash()
        if _size(file.partial) > file.facts.size:
            stream.truncate(0)
        while block := stream.read(READ_BYTES):
            digest.update(block)
            self._done += len(block)
            self._report(file, stream.tell(), is_checking=True)
        return [digest]

    def _append(self, file: RepoFile, stream: Any, digest: list[Any]) -> None:
        """Pull the rest of the file. Raises PullError if the connection ends too early."""
        start = stream.tell()
        if start == file.facts.size:
            return
        with self._hub.content(file.source, file.commit, file.name, start) as (begin, blocks):
            if begin != start:
                # The server ignores ranges: what is here arrives again.
                self._done -= start
                stream.seek(0)
                stream.truncate(0)
                digest[0] = file.new_hash()
            for block in blocks:
                block = block[: file.facts.size - stream.tell()]
                _write(stream, block)
                digest[0].update(block)
                self._done += len(block)
                self._pace.add(len(block))
                self._report(file, stream.tell())
                if stream.tell() == file.facts.size:
                    return
        raise PullError("network", f"{file.name} of {file.source.repo} ended too early. {AGAIN}")

    def _retried(self, repo: str, name: str, attempt: Callable[[], Any]) -> Any:
        """The result of `attempt`, repeated after failures that may pass. Bytes that arrived reset the waits."""
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
                self._sleep(wait_s)

    def _report(self, file: RepoFile, done_bytes: int, is_checking: bool = False, is_due: bool = False) -> None:
        now = time.monotonic()
        if not is_due and now - self._reported_at_s < self._job.report_every_s:
            return
        self._reported_at_s = now
        rate = self._pace.bytes_per_s
        self._emit(
            PullProgress(
                repo=file.source.repo,
                file=file.name,
                file_done_bytes=done_bytes,
                file_total_bytes=file.facts.size,
                done_bytes=self._done,
                total_bytes=self._total,
                rate_bytes_per_s=rate,
                left_s=(self._total - self._done) / rate if rate else None,
                is_checking=is_checking,
            )
        )


def _check_weights(names: Collection[str], repo: str) -> None:
    """Raises PullError if the weights that a repository lists cannot be loaded. An index is trusted for now."""
    for part in ("", *(f"{name}/" for name in PART_NAMES)):
        own = {name.removeprefix(part) for name in names if name.startswith(part)}
        if "config.json" not in own or INDEX in own:
            continue
        try:
            missing = sorted(set(choose_weight_files(own, None, repo)) - own)
        except ModelFolderError as error:
            raise PullError("content", str(error)) from None
        if missing:
            raise PullError(
                "content", f"{repo} is not complete: it has no {part}{missing[0]}. Choose another repository."
            )


def _why_no_model(repo: str, names: Iterable[str]) -> str:
    """Why a repository cannot be pulled that has no model where one is expected."""
    weights = [name for name in names if name.endswith(".safetensors")]
    folders = sorted({name.rpartition("/")[0] for name in weights if "/" in name})
    if folders:
        shown = ", ".join(folders[:MAX_SHOWN_FOLDERS])
        return (
            f"{repo} keeps its weights in folders of their own ({shown}), where a pull does not look. "
            f"Run `hf download {repo} --local-dir FOLDER`, and open the model's folder with --model."
        )
    if weights:
        return (
            f"{repo} has weights but no config.json beside them, so it is not a whole model. Nothing was pulled."
        )
    return (
        f"{repo} contains no model in the safetensors format. Choose one that does: `slipstream models list` "
        "shows some."
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write(stream: Any, block: bytes) -> None:
    """Write all of `block`; a raw file may accept only a part when the disk is nearly full."""
    view = memoryview(block)
    while view:
        view = view[stream.write(view) :]
