"""Resolves `--model` and `--drafter` to folders: catalog names, folders and hub ids.

A name in the catalog means its entry; write `./name` for a folder of the same name. Hub ids are looked up in the
local cache; nothing is pulled. Pairs are matched by their configs, and a drafter that does not fit is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_engine.protocol.errors import ModelFolderError, PairMismatchError
from models import hub_cache, pocket
from models.bundles import bundle_of, drafters_of, has_config, target_in
from models.catalog import REPO, Catalog, Source, load_catalog
from models.config import Config, check_hidden_size, check_match, read_config
from models.drafter_search import is_qat_name, matching_drafter
from models.errors import ModelsError
from models.paths import expanded


@dataclass(frozen=True, slots=True)
class PairFolders:
    """The folders of a target and its drafter."""

    target: Path
    drafter: Path | None
    name: str | None = None
    """The target's name in the catalog, if it has one."""
    notice: str = ""
    """A sentence for the person: the drafter is missing, or of another branch."""
    refusal: str = ""
    """Why the chosen drafter is left out: it was made for another target. Names the right one."""

    @property
    def is_pocket(self) -> bool:
        """Whether the target is the bundled one."""
        return self.target == pocket.TARGET_FOLDER


def find_pair(
    model: str | None, drafter: str, catalog: Catalog | None = None, cache: Path | None = None
) -> PairFolders:
    """The pair that `--model NAME|FOLDER|HUB-ID` and `--drafter NAME|FOLDER|HUB-ID|auto|none` mean.

    A folder that does not exist is returned as it is; the caller reports it. Raises ModelsError for a name that is
    unknown or not on this machine, and for a path that cannot be one.
    """
    if model is None and drafter in ("auto", "none"):
        return PairFolders(pocket.TARGET_FOLDER, pocket.DRAFTER_FOLDER if drafter == "auto" else None, "pocket")
    return _Finder(catalog or load_catalog(), cache or hub_cache.cache_folder()).find(model or "pocket", drafter)


def called(folder: Path) -> str:
    """The name of the model in a folder: its repository if it is in a hub cache, otherwise the name of the folder,
    or of the bundle whose target it is."""
    bundled = {pocket.TARGET_FOLDER.resolve(): "pocket", pocket.DRAFTER_FOLDER.resolve(): "pocket-drafter"}
    resolved = folder.resolve()
    bundle = bundle_of(resolved)
    return bundled.get(resolved) or hub_cache.repo_of(resolved) or (bundle or resolved).name


class _Finder:
    def __init__(self, catalog: Catalog, cache: Path) -> None:
        self._catalog = catalog
        self._cache = cache

    def find(self, model: str, drafter: str) -> PairFolders:
        name, target, source = self._target(model)
        drafter_folder, notice = None, ""
        if drafter == "auto":
            drafter_folder, notice = self._drafter_of(name, target)
        try:
            if drafter not in ("auto", "none"):
                drafter_folder = self._named_drafter(drafter, target)
            if drafter_folder is not None:
                self._check(target, drafter_folder)
        except PairMismatchError as error:
            return PairFolders(target, None, name, refusal=str(error))
        if drafter_folder is not None:
            notice = notice or self._branch_notice(name, source, drafter_folder)
        return PairFolders(target, drafter_folder, name, notice)

    def _target(self, model: str) -> tuple[str | None, Path, str]:
        """(catalog name, folder, name to show)."""
        name = self._catalog.name_of(model)
        if name is not None:
            source = self._catalog.entries[name].target
            folder = self._folder(source)
            folder = target_in(folder) if folder else None
            if folder is None:
                raise ModelsError(f"{name} is not on this machine. Run `slipstream models pull {name}`.")
            return name, folder, source.location
        path = expanded(model)
        if path.exists() or not (REPO.fullmatch(model) or _is_plain_name(model)):
            path = target_in(path)
            repo = hub_cache.repo_of(path)
            known = self._catalog.by_repo(repo) if repo else None
            return (known[0] if known else None), path, called(path)
        if _is_plain_name(model):
            self._catalog.find(model)  # raises, and suggests similar names
        known = self._catalog.by_repo(model)
        return (known[0] if known else None), target_in(self._snapshot(model)), model

    def _named_drafter(self, drafter: str, target: Path) -> Path:
        """Raises ModelsError, and PairMismatchError for one that the catalog has for another target."""
        path = expanded(drafter)
        if path.exists():
            return path
        name = self._catalog.name_of(drafter)
        if name is not None:
            source = self._catalog.entries[name].drafter
            folder = self._folder(source) if source else None
            if folder is None:
                raise ModelsError(
                    f"The drafter of {name} is not on this machine. Run `slipstream models pull {name}`."
                )
            return folder
        if not REPO.fullmatch(drafter):
            return self._catalog_drafter(drafter, target) or path
        return self._snapshot(drafter)

    def _catalog_drafter(self, drafter: str, target: Path) -> Path | None:
        """The folder of the drafter of this name, or of this kind for the target. Raises as above."""
        try:
            config = read_config(target)
        except ModelFolderError:
            config = None  # the engine reports it
        found = self._catalog.drafter_of(drafter, self._family_of(config) if config else None)
        if found is None and drafter.lower() in {one.kind for one in self._catalog.drafters.values()}:
            raise ModelsError(
                f"The catalog has no {drafter} drafter for {called(target)}. "
                "Use --drafter auto, or a folder or hub id."
            )
        if found is None:
            return None
        name, entry = found
        if config is not None:
            check_hidden_size(
                self._catalog.families[entry.family].layers.hidden_size,
                config,
                (name, called(target)),
                self._advice(config),
            )
        folder = self._folder(entry.source)
        if folder is None:
            raise ModelsError(f"The drafter {name} is not on this machine. Run `slipstream models pull {name}`.")
        return folder

    def _family_of(self, target: Config) -> str | None:
        """The family that a target's config shows it to be of."""
        sizes = target.hidden_size, target.layers.vocab_size
        return next(
            (
                name
                for name, family in self._catalog.families.items()
                if (family.layers.hidden_size, family.layers.vocab_size) == sizes
            ),
            None,
        )

    def _snapshot(self, repo: str) -> Path:
        snapshot = hub_cache.find_snapshot(self._cache, repo)
        if snapshot is None or not snapshot.is_complete:
            state = "is not complete" if snapshot else "is neither a folder nor a pulled model"
            raise ModelsError(f"{repo} {state} on this machine. Run `slipstream models pull {repo}`.")
        return snapshot.folder

    def _folder(self, source: Source) -> Path | None:
        """The folder of a source's files; None unless all of them are on this machine."""
        if source.folder is not None:
            return Path(source.folder)
        assert source.repo is not None
        snapshot = hub_cache.find_snapshot(self._cache, source.repo, source.revision)
        return snapshot.folder if snapshot and snapshot.is_complete else None

    def _drafter_of(self, name: str | None, target: Path) -> tuple[Path | None, str]:
        """The target's own drafter, and a notice if it is not on this machine.

        The one that is packed with it or named after it; the one of the catalog; any that its config shows to fit.
        """
        nearby = _nearby_drafter(target)
        if nearby is not None:
            return nearby, ""
        entry = self._catalog.entries[name] if name else None
        folder = self._folder(entry.drafter) if entry and entry.drafter else None
        if folder is None and (entry is None or entry.drafter is not None):
            is_qat = entry.target.qat if entry else is_qat_name(called(target))
            folder = matching_drafter(target, is_qat, self._cache, called)
        if folder is not None or entry is None or entry.drafter is None:
            return folder, ""
        return None, f"Its drafter is not on this machine. Run `slipstream models pull {name}`."

    def _check(self, target: Path, drafter: Path) -> None:
        """Raises PairMismatchError."""
        try:
            pair = read_config(target), read_config(drafter)
        except ModelFolderError:
            return  # the engine reports it
        if pair[1].is_drafter and not pair[0].is_drafter:
            check_match(*pair, (str(drafter), str(target)), self._advice(pair[0]))

    def _advice(self, target: Config) -> str:
        family = self._family_of(target)
        for name, entry in self._catalog.entries.items():
            if entry.family == family and entry.drafter and not entry.target.qat:
                how = f"run `slipstream models pull {name}`" if entry.drafter.repo else "--drafter auto finds it"
                return f"The right one is {entry.drafter.location}: {how}."
        return "Use the -assistant folder of the same variant, or --drafter none."

    def _branch_notice(self, name: str | None, source: str, drafter: Path) -> str:
        is_qat = self._catalog.entries[name].target.qat if name else is_qat_name(source)
        if is_qat == is_qat_name(called(drafter)):
            return ""
        return "Only one of the pair was trained for quantization (QAT), so fewer drafted tokens will be accepted."


def _nearby_drafter(target: Path) -> Path | None:
    """A drafter that is packed with the target, or beside it as `NAME-assistant`."""
    beside = [target.with_name(f"{target.name}-assistant")] if target.name else []
    return next((folder for folder in (*drafters_of(target), *beside) if has_config(folder)), None)


def _is_plain_name(model: str) -> bool:
    return not any(mark in model for mark in "/\\~") and not model.startswith(".")
