"""The Hugging Face cache on this machine: snapshots, listings and partial files, and how to remove a model.

It has the layout that every other tool of that cache reads: `models--owner--name/` with `blobs/`, `refs/`,
`snapshots/<commit>/` of links into `blobs/`, and `trees/<commit>.json`, the hub's own listing of a commit. The
listing also records the size and hash of every file. Opens no connection.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec, TypeVar

import msgspec

from mlx_engine.files.atomic import replace_file
from mlx_engine.files.folder_files import snapshot_of
from mlx_engine.files.weight_files import weight_files
from mlx_engine.protocol.errors import ModelFolderError
from models.bundles import PART_NAMES, target_in
from models.catalog import check_repo
from models.config import read_config
from models.errors import ModelsError, PullError
from models.paths import expanded, home_folder, in_utf8

P = ParamSpec("P")
T = TypeVar("T")

WITHOUT_LINKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)
"""What making a link fails with on file systems that have none."""
COMMIT = re.compile(r"[0-9a-f]{40}")
TREE_FORMAT = 1
MAX_TREE_BYTES = 16 << 20
MAX_FILE_BYTES = 1 << 42
PULLED_NAMES = re.compile(
    rf"(?:(?:{'|'.join(PART_NAMES)})/)?"
    r"(?:config\.json|generation_config\.json|chat_template\.(jinja|json)|model.*\.safetensors(\.index\.json)?"
    r"|tokenizer\.(json|model)|(tokenizer_config|special_tokens_map|added_tokens)\.json)"
)
"""Weights, tokenizer, configuration and template, also of a bundle's parts: everything that a chat needs, and
nothing that could be run."""

Size = Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]
Sha1 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class FileFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file of a commit, as the hub lists it."""

    size: Size
    blob_id: Sha1
    """Git's hash of the file, or of its pointer if the file is large."""
    lfs_sha256: Sha256 | None = None
    """Hash of a large file's content."""
    lfs_size: Size | None = None
    xet_hash: str | None = None

    @property
    def blob_name(self) -> str:
        """The name of its content in `blobs/`."""
        return self.lfs_sha256 or self.blob_id


class _Tree(msgspec.Struct, frozen=True):
    format_version: int
    files: dict[str, FileFacts]


@dataclass(frozen=True, slots=True)
class RepoSnapshot:
    """One commit of a repository on this machine."""

    repo: str
    commit: str
    folder: Path
    is_complete: bool
    missing: tuple[str, ...]
    """Names of the missing files, as far as they are known."""


def cache_folder() -> Path:
    """The hub's cache by its own rules: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, ~/.cache. Raises PathError."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return in_utf8(expanded(os.path.expandvars(named)))
    home = os.environ.get("HF_HOME")
    if home:
        return in_utf8(expanded(os.path.expandvars(home)) / "hub")
    base = os.environ.get("XDG_CACHE_HOME")
    return in_utf8((expanded(base) if base else home_folder() / ".cache") / "huggingface" / "hub")


def offline_variable(environment: Mapping[str, str]) -> str | None:
    """The variable that turns offline mode on, by huggingface_hub's own rule, or None."""
    name = "HF_HUB_OFFLINE" if environment.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return name if environment.get(name, "").upper() in ("1", "TRUE", "YES", "ON") else None


def repo_folder(cache: Path, repo: str) -> Path:
    """Where the cache keeps a repository. Raises PullError if `repo` is not a hub id."""
    return cache / ("models--" + check_repo(repo).replace("/", "--"))


def repo_of(folder: Path) -> str | None:
    """The hub id of a snapshot in a hub's cache, or of a part of one; None for other folders."""
    snapshot = snapshot_of(folder)
    cached = snapshot.parent.parent.name if snapshot else ""
    return cached.removeprefix("models--").replace("--", "/", 1) if cached.startswith("models--") else None


def files_to_pull(files: Mapping[str, FileFacts]) -> dict[str, FileFacts]:
    """The files that are pulled, small ones first."""
    names = sorted(
        (name for name in files if PULLED_NAMES.fullmatch(name)), key=lambda name: (files[name].size, name)
    )
    return {name: files[name] for name in names}


def _reading(read: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
    """`read`, a function that reads a cache, with the system's errors as PullError."""

    @wraps(read)
    def guarded(cache: Path, /, *arguments: P.args, **options: P.kwargs) -> T:
        try:
            return read(cache, *arguments, **options)
        except OSError as error:
            path, why = error.filename or cache, error.strerror or error
            raise PullError(
                "disk", f"{path} cannot be read: {why}. Correct that, or set HF_HOME to another folder."
            ) from None

    return guarded


@_reading
def find_snapshot(cache: Path, repo: str, revision: str | None = None) -> RepoSnapshot | None:
    """The snapshot of a revision; by default main's, or the newest one if main's is not complete.

    Returns an incomplete snapshot only if there is no complete one. Raises PullError.
    """
    folder = repo_folder(cache, repo)
    if revision is None:
        main = _ref(folder, "main")
        return max(
            _snapshots(cache, repo),
            key=lambda one: (one.is_complete, one.commit == main, one.folder.stat().st_mtime),
            default=None,
        )
    commit = revision if COMMIT.fullmatch(revision) else _ref(folder, revision)
    if commit is None or not (folder / "snapshots" / commit).is_dir():
        return None
    return _snapshot(cache, repo, commit)


@_reading
def installed(cache: Path) -> list[RepoSnapshot]:
    """All snapshots of Gemma 4 targets and assistants in the cache, sorted by repository. Raises PullError."""
    if not cache.is_dir():
        return []
    names = sorted(path.name for path in cache.iterdir() if path.name.startswith("models--") and path.is_dir())
    repos = [name.removeprefix("models--").replace("--", "/", 1) for name in names]
    return [one for repo in repos if "/" in repo for one in _snapshots(cache, repo) if _is_gemma4(one.folder)]


def _is_gemma4(folder: Path) -> bool:
    try:
        read_config(target_in(folder))
    except ModelFolderError:
        return False
    return True


def _snapshots(cache: Path, repo: str) -> Iterator[RepoSnapshot]:
    root = repo_folder(cache, repo) / "snapshots"
    if root.is_dir():
        for path in sorted(root.iterdir()):
            if COMMIT.fullmatch(path.name) and path.is_dir():
                yield _snapshot(cache, repo, path.name)


def _snapshot(cache: Path, repo: str, commit: str) -> RepoSnapshot:
    folder = repo_folder(cache, repo) / "snapshots" / commit
    missing = tuple(_missing(folder, read_listing(cache, repo, commit)))
    return RepoSnapshot(repo, commit, folder, is_complete=not missing, missing=missing)


def _missing(folder: Path, listing: Mapping[str, FileFacts] | None) -> Iterator[str]:
    if listing is not None:
        for name, facts in files_to_pull(listing).items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != facts.size:
                yield name
        return
    try:
        needed = [target_in(folder) / "config.json", *weight_files(target_in(folder))]
    except ModelFolderError:
        yield "model.safetensors.index.json"
        return
    yield from (path.name for path in needed if not path.is_file())


def _ref(folder: Path, revision: str) -> str | None:
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def write_ref(folder: Path, revision: str, commit: str) -> None:
    """Record which commit a branch or tag meant."""
    if revision != commit:
        _write_record(folder / "refs" / revision, commit)


def read_listing(cache: Path, repo: str, commit: str) -> dict[str, FileFacts] | None:
    """The hub's recorded listing of a commit; None if it is missing or unreadable."""
    path = repo_folder(cache, repo) / "trees" / f"{commit}.json"
    try:
        if path.stat().st_size > MAX_TREE_BYTES:
            return None
        tree = msgspec.json.decode(path.read_bytes(), type=_Tree)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None
    return tree.files if tree.format_version == TREE_FORMAT else None


def write_listing(folder: Path, commit: str, files: Mapping[str, FileFacts]) -> None:
    """Record the listing of a commit in the repository's folder."""
    tree = msgspec.json.encode(_Tree(TREE_FORMAT, dict(sorted(files.items()))))
    _write_record(folder / "trees" / f"{commit}.json", msgspec.json.format(tree, indent=1))


def _write_record(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Every account may read the cache. Not synced: a lost record is pulled again.
    replace_file(path, content, mode=0o644, is_synced=False)


def link_file(folder: Path, commit: str, name: str, blob_name: str) -> None:
    """Make `name` of a snapshot point to its content, replacing a link that points elsewhere.

    Without links, as on exFAT, it becomes a copy. Raises PullError if there is no room for that, and OSError.
    """
    link = folder / "snapshots" / commit / name
    target = os.path.join("..", "..", *[".."] * name.count("/"), "blobs", blob_name)
    if link.is_symlink() and os.readlink(link) == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    # A link cannot be written like a file: it is made under another name and then renamed.
    fresh = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    try:
        os.symlink(target, fresh)
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        blob = folder / "blobs" / blob_name
        if link.is_file() and link.stat().st_size == blob.stat().st_size:
            return
        _copy(blob, fresh)
    os.replace(fresh, link)


def _copy(blob: Path, copy: Path) -> None:
    try:
        shutil.copyfile(blob, copy)
    except OSError as error:
        copy.unlink(missing_ok=True)
        raise PullError(
            "disk",
            f"{blob.parent.parent} is on a file system without links, where each file is kept twice. A copy of "
            f"{blob.stat().st_size / 1e9:.1f} GB failed ({error.strerror or error}). Set HF_HOME to another disk, "
            "on a Mac one with APFS.",
        ) from None


@_reading
def size_on_disk(cache: Path, repo: str) -> tuple[int, int]:
    """(all bytes of a repository, those of partial files). Raises PullError."""
    total = partial = 0
    blobs = repo_folder(cache, repo) / "blobs"
    for path in blobs.iterdir() if blobs.is_dir() else ():
        if path.is_file():
            total += path.stat().st_size
            partial += path.stat().st_size if path.name.endswith(".incomplete") else 0
    return total, partial


def remove(cache: Path, repo: str) -> int:
    """Delete a repository from the cache, including partial files; bytes freed. Raises ModelsError."""
    folder = repo_folder(cache, repo)
    if not folder.is_dir() or folder.resolve().parent != cache.resolve():
        raise ModelsError(f"{repo} is not in {cache}. Run `slipstream models list` to see the models there.")
    total, _ = size_on_disk(cache, repo)
    try:
        _remove_shared(cache, folder)
        if folder.exists():
            shutil.rmtree(folder)
        shutil.rmtree(cache / ".locks" / folder.name, ignore_errors=True)
    except OSError as error:
        raise ModelsError(f"{folder} could not be removed completely: {error.strerror or error}.") from None
    return total


def _remove_shared(cache: Path, folder: Path) -> None:
    """Let the library remove a repository whose content is in its shared store, which counts the users."""
    blobs = folder / "blobs"
    if not blobs.is_dir() or not any(path.is_symlink() for path in blobs.iterdir()):
        return
    from huggingface_hub import scan_cache_dir

    scan = scan_cache_dir(cache)
    for cached in scan.repos:
        if cached.repo_path == folder:
            commits = [revision.commit_hash for revision in cached.revisions]
            scan.delete_revisions(*commits).execute()
