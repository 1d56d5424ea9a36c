"""The rows of the model lists: each catalog entry, whether it fits, and how much of it is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.system import places
from models import hub_cache
from models.catalog import Catalog, CatalogEntry, Source, load_catalog
from models.errors import ModelsError
from models.hub_cache import find_snapshot
from models.memory_fit import Fit, Machine, fit, size_of_entry


def own_and_bundled() -> Catalog:
    """The bundled catalog with the person's own entries. Raises CatalogError."""
    return load_catalog(places.own_catalog())


def model_rows(catalog: Catalog, cache: Path, machine: Machine) -> list[dict[str, Any]]:
    """One row per entry, in the order of the catalog. Raises PullError if the cache cannot be read."""
    return [
        _row(name, entry, catalog, fit(size_of_entry(entry, catalog), machine), _state(entry, cache))
        for name, entry in catalog.entries.items()
    ]


def _row(name: str, entry: CatalogEntry, catalog: Catalog, memory_fit: Fit, state: str) -> dict[str, Any]:
    return {
        "name": name,
        "aliases": entry.aliases,
        "title": f"{catalog.family(entry).title} {entry.precision}{' QAT' if entry.target.qat else ''}",
        "licence": catalog.family(entry).licence,
        "target": entry.target,
        "drafter": entry.drafter,
        "weights_bytes": entry.target.size_bytes,
        "fit": memory_fit.verdict,
        "needed_bytes": memory_fit.needed_bytes,
        "largest_context_tokens": memory_fit.largest_context_tokens,
        "recommended_memory_gb": entry.recommended_memory_gb,
        "draft_length": entry.draft_length,
        "here": state,
        "note": entry.note,
    }


def _state(entry: CatalogEntry, cache: Path) -> str:
    """How much of an entry is on this machine: `yes`, `no drafter`, `part` or `-`."""
    target, *drafter = (pulled_state(source, cache) for source in entry.sources)
    if target != "yes":
        return target
    return "yes" if all(state == "yes" for state in drafter) else "no drafter"


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
