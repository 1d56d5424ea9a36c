"""A hub's cache on disk with models in it, as a pull leaves them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from models import hub_cache
from models.hub_cache import FileFacts

COMMIT = "ab" * 20


def put(cache: Path, repo: str, source: Path, commit: str = COMMIT) -> Path:
    """Put a folder into the cache as a snapshot of `repo`; its path."""
    folder = hub_cache.repo_folder(cache, repo)
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    listing = {}
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        name = path.relative_to(source).as_posix()
        data = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        is_large = path.suffix == ".safetensors"
        facts = FileFacts(len(data), git, hashlib.sha256(data).hexdigest() if is_large else None)
        listing[name] = facts
        (folder / "blobs" / facts.blob_name).write_bytes(data)
        hub_cache.link_file(folder, commit, name, facts.blob_name)
    hub_cache.write_listing(folder, commit, listing)
    hub_cache.write_ref(folder, "main", commit)
    return folder / "snapshots" / commit
