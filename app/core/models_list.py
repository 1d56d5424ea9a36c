"""The rows of the model lists: each catalog entry, whether it fits, and how much of it is on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from app.system import places
from mlx_engine.protocol.errors import ModelFolderError
from models import hub_cache
from models.catalog import Catalog, CatalogEntry, Source, load_catalog
from models.errors import ModelsError
from models.folders import PairFolders, find_pair
from models.hub_cache import find_snapshot
from models.memory_fit import Machine, PairSize, fit, size_of_entry, size_of_folders


def own_and_bundled() -> Catalog:
    """The bundled catalog with the person's own entries. Raises CatalogError."""
    return load_catalog(places.own_catalog())


def model_rows(catalog: Catalog, cache: Path, machine: Machine) -> list[dict[str, Any]]:
    """One row per entry, in the order of the catalog; sizes are those of the files where they are here.

    Raises PullError if the cache cannot be read.
    """
    return [_row(name, entry, catalog, cache, machine) for name, entry in catalog.entries.items()]


def drafter_rows(catalog: Catalog, cache: Path) -> list[dict[str, Any]]:
    """One row per drafter that is not the usual one of an entry. Raises PullError if the cache cannot be read."""
    return [
        {
            "name": name,
            "kind": drafter.kind,
            "family": drafter.family,
            "title": f"{drafter.kind} for {catalog.families[drafter.family].title}",
            "source": drafter.source,
            "weights_bytes": drafter.source.size_bytes,
            "here": pulled_state(drafter.source, cache),
            "note": drafter.note,
        }
        for name, drafter in catalog.drafters.items()
    ]


def pair_here(name: str, entry: CatalogEntry, catalog: Catalog, cache: Path) -> PairFolders | None:
    """The folders of an entry, with the drafter that a chat would use; None unless its target is here."""
    if pulled_state(entry.target, cache) != "yes":
        return None
    try:
        return find_pair(name, "auto", catalog, cache)
    except ModelsError:
        return None


def size_of(entry: CatalogEntry | None, pair: PairFolders | None, catalog: Catalog) -> tuple[PairSize, str]:
    """The sizes of a pair, and where they are from: the files if they are here, otherwise the catalog.

    One of the two is needed. Raises ModelFolderError if the files cannot be read.
    """
    if pair is None:
        assert entry is not None
        kinds = " and ".join(sorted({source.size_source or "unknown" for source in entry.sources}))
        return size_of_entry(entry, catalog), f"the catalog ({kinds})"
    size = size_of_folders(pair.target, pair.drafter)
    if pair.drafter is None and entry is not None and entry.drafter is not None:
        return replace(size, drafter_bytes=entry.drafter.size_bytes), "the files, and for the drafter the catalog"
    return size, "the files themselves"


def _row(name: str, entry: CatalogEntry, catalog: Catalog, cache: Path, machine: Machine) -> dict[str, Any]:
    pair = pair_here(name, entry, catalog, cache)
    try:
        size, _ = size_of(entry, pair, catalog)
    except ModelFolderError:
        size, _ = size_of(entry, None, catalog)
    memory_fit = fit(size, machine)
    return {
        "name": name,
        "aliases": entry.aliases,
        "title": f"{catalog.family(entry).title} {entry.precision}{' QAT' if entry.target.qat else ''}",
        "licence": catalog.family(entry).licence,
        "target": entry.target,
        "drafter": entry.drafter,
        "weights_bytes": size.target_bytes,
        "fit": memory_fit.verdict,
        "needed_bytes": memory_fit.needed_bytes,
        "largest_context_tokens": memory_fit.largest_context_tokens,
        "recommended_memory_gb": entry.recommended_memory_gb,
        "draft_length": entry.draft_length,
        "here": _state(entry, pair, cache),
        "note": entry.note,
    }


def _state(entry: CatalogEntry, pair: PairFolders | None, cache: Path) -> str:
    """How much of an entry is on this machine: `yes`, `no drafter`, `part` or `-`."""
    if pair is None:
        return pulled_state(entry.target, cache)
    return "no drafter" if pair.drafter is None and entry.drafter is not None else "yes"


def pulled_state(source: Source, cache: Path) -> str:
    """How much of one model of a pair is on this machine: `yes`, `part` or `-`."""
    if source.repo is None:
        return "yes" if Path(source.location).is_dir() else "-"
    snapshot = find_snapshot(cache, source.repo, source.revision)
    if snapshot is not None and snapshot.is_complete:
        return "yes"
    return "part" if snapshot or hub_cache.size_on_disk(cache, source.repo)[0] else "-"


def removable_repos(name: str, catalog: Catalog, cache: Path) -> list[str]:
    """The repositories of an entry, except a drafter that another model here also uses.

    Raises ModelsError if none of them is here.
    """
    entry = catalog.entries[name]
    here = [
        repo
        for source in entry.sources
        if (repo := source.repo) is not None and hub_cache.repo_folder(cache, repo).is_dir()
    ]
    if not here:
        raise ModelsError(f"{name} is not in {cache}, so there is nothing to remove.")
    used = {
        other.drafter.repo
        for own, other in catalog.entries.items()
        if own != name and other.drafter is not None and pulled_state(other.target, cache) != "-"
    }
    return [repo for repo in here if repo == entry.target.repo or repo not in used]
