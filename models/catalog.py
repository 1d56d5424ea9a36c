"""The catalog: the models that can be chosen by name. The header of `catalog.yaml` explains each field.

A person's own file adds entries or replaces them. Nothing here reads anything but the catalog files.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml

from mlx_engine.files.regular_file import read_regular
from models.config import LayerFacts
from models.errors import CatalogError, ModelsError, PullError
from models.paths import expanded

BUNDLED_FILE = Path(__file__).with_name("catalog.yaml")
FORMAT = 1
MAX_FILE_BYTES = 1 << 20
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
REPO = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?/[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
REVISION = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,98}\w)?", re.ASCII)

T = TypeVar("T")
Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 50)]


def check_repo(repo: str) -> str:
    """`repo` itself. Raises PullError unless it is a well-formed hub id, `owner/name`."""
    if len(repo) > 96 or not REPO.fullmatch(repo) or ".." in repo or "--" in repo or repo.endswith(".git"):
        raise PullError("name", f"{repo[:100]!r} is not a hub id. Use one like google/gemma-4-E4B-it.")
    return repo


def check_revision(revision: str) -> str:
    """`revision` itself. Raises PullError unless it is a commit, branch or tag without a path in it."""
    if not REVISION.fullmatch(revision) or ".." in revision:
        raise PullError(
            "name", f"{revision[:100]!r} is not a revision. Use a commit of 40 hex digits, a branch or a tag."
        )
    return revision


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one half of a pair comes from; see the header of catalog.yaml."""

    repo: str | None = None
    folder: str | None = None
    revision: str | None = None
    qat: bool = False
    size_bytes: Positive | None = None
    size_source: Literal["listed", "reported", "calculated"] | None = None
    name_source: Literal["listed", "seen", "derived"] = "seen"
    checked: bool = False

    def __post_init__(self) -> None:
        if (self.repo is None) == (self.folder is None):
            raise ValueError("give either repo or folder")
        if (self.size_bytes is None) != (self.size_source is None):
            raise ValueError("size_bytes and size_source go together")
        if self.repo is not None:
            _valid(check_repo, self.repo)
        if self.revision is not None:
            _valid(check_revision, self.revision)
        if self.folder is not None:
            _valid(expanded, self.folder)

    @property
    def location(self) -> str:
        """The hub id or the folder."""
        return self.repo or self.folder or ""


def _valid(check: Any, value: str) -> None:
    try:
        check(value)
    except ModelsError as error:
        raise ValueError(str(error)) from None


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all entries of one model size share."""

    title: str
    licence: str
    parameters: Positive
    layers: LayerFacts


class CatalogEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that can be chosen: a target and its drafter."""

    family: str
    precision: Literal["4-bit", "8-bit", "bf16", "float32"]
    target: Source
    drafter: Source | None
    recommended_memory_gb: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    draft_length: Annotated[int, msgspec.Meta(ge=1, le=16)]
    aliases: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.drafter is not None and self.target.qat != self.drafter.qat:
            raise ValueError("target and drafter must both be QAT or both not")

    @property
    def item_bytes(self) -> int:
        """Size of one number in the activations and the K/V cache."""
        return 4 if self.precision == "float32" else 2

    @property
    def sources(self) -> tuple[Source, ...]:
        """The target's, then the drafter's if there is one."""
        return (self.target,) if self.drafter is None else (self.target, self.drafter)


class CatalogDrafter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A drafter that can be chosen in place of, or beside, the one of an entry; for all precisions of a family."""

    family: str
    kind: Literal["dspark", "dflash", "eagle3"]
    source: Source
    note: str = ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Entries, other drafters and families by name, both the bundled ones and a person's own."""

    entries: Mapping[str, CatalogEntry]
    families: Mapping[str, Family]
    drafters: Mapping[str, CatalogDrafter]
    own_names: frozenset[str] = frozenset()
    """Names of entries from the person's file."""

    def next_smaller(self, target_bytes: int) -> str | None:
        """The entry with the largest weights below this size, where sizes are known; never the pocket model."""
        sizes = {name: entry.target.size_bytes or 0 for name, entry in self.entries.items() if entry.target.repo}
        smaller = [name for name, size_bytes in sizes.items() if 0 < size_bytes < target_bytes]
        return max(smaller, key=sizes.__getitem__, default=None)

    def name_of(self, name: str) -> str | None:
        """The entry with this name or alias, ignoring case; None if there is none."""
        lowered = name.lower()
        if lowered in self.entries:
            return lowered
        return next((own for own, entry in self.entries.items() if lowered in entry.aliases), None)

    def find(self, name: str) -> tuple[str, CatalogEntry]:
        """The entry with this name or alias. Raises CatalogError, which suggests similar names."""
        known_name = self.name_of(name)
        if known_name is None:
            if (drafter := self.drafter_of(name)) is not None:
                family = drafter[1].family
                raise CatalogError(
                    f"{drafter[0]} is a drafter: choose a model of the family {family} and --drafter {drafter[0]}."
                )
            known = [*self.entries, *(alias for entry in self.entries.values() for alias in entry.aliases)]
            near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
            hint = f"Did you mean {', '.join(near)}? " if near else ""
            raise CatalogError(f"There is no model {name[:80]!r}. {hint}`slipstream models list` shows them all.")
        return known_name, self.entries[known_name]

    def family(self, entry: CatalogEntry) -> Family:
        """The family of an entry of this catalog."""
        return self.families[entry.family]

    def drafters_for(self, family: str) -> dict[str, CatalogDrafter]:
        """The other drafters of a family, by name."""
        return {name: drafter for name, drafter in self.drafters.items() if drafter.family == family}

    def drafter_of(self, name: str, family: str | None = None) -> tuple[str, CatalogDrafter] | None:
        """The drafter with this name, ignoring case, or the family's first one of this kind; None if there is
        none."""
        lowered = name.lower()
        if lowered in self.drafters:
            return lowered, self.drafters[lowered]
        own = self.drafters_for(family) if family else {}
        return next((one for one in own.items() if one[1].kind == lowered), None)

    def location_of(self, model: str) -> str:
        """Where a drafter of the catalog comes from; any other name itself."""
        drafter = self.drafter_of(model)
        return drafter[1].source.location if drafter else model

    def by_repo(self, repo: str) -> tuple[str, CatalogEntry] | None:
        """The entry whose target is this repository; the hub ignores case."""
        for name, entry in self.entries.items():
            if (entry.target.repo or "").lower() == repo.lower():
                return name, entry
        return None


def load_catalog(own_file: Path | None = None) -> Catalog:
    """The bundled catalog with the person's own entries, if their file exists. Raises CatalogError."""
    bundled = _read(BUNDLED_FILE)
    if own_file is None or not own_file.exists():
        return _checked(bundled, BUNDLED_FILE)
    own = _read(own_file)
    return _checked(
        Catalog(
            entries={**bundled.entries, **own.entries},
            families={**bundled.families, **own.families},
            drafters={**bundled.drafters, **own.drafters},
            own_names=frozenset(own.entries),
        ),
        own_file,
    )


def _read(path: Path) -> Catalog:
    tree = _yaml(path)
    unknown = tree.keys() - {"format", "families", "entries", "drafters"}
    if unknown:
        raise CatalogError(
            f"{path}: {min(map(str, unknown))!r} is unknown. Use format, families, entries and drafters."
        )
    if tree.get("format") != FORMAT:
        raise CatalogError(f"{path}: format is {tree.get('format')!r}; this version reads format: {FORMAT}.")
    return Catalog(
        entries={
            name: msgspec.structs.replace(
                entry,
                target=_resolved(entry.target, path),
                drafter=entry.drafter and _resolved(entry.drafter, path),
            )
            for name, entry in _section(tree, "entries", CatalogEntry, path).items()
        },
        families=_section(tree, "families", Family, path),
        drafters={
            name: msgspec.structs.replace(drafter, source=_resolved(drafter.source, path))
            for name, drafter in _section(tree, "drafters", CatalogDrafter, path).items()
        },
    )


def _section(tree: dict[str, Any], section: str, kind: type[T], path: Path) -> dict[str, T]:
    values = tree.get(section) or {}
    if not isinstance(values, dict):
        raise CatalogError(f"{path}: {section} does not map names to values.")
    made = {}
    for name, value in values.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise CatalogError(
                f"{path}: {str(name)[:80]!r} in {section} is not a name. Use a-z, 0-9, dot and hyphen."
            )
        try:
            made[name] = msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise CatalogError(f"{path}: {section} {name!r}: {error}. Correct the entry or remove it.") from None
    return made


def _resolved(source: Source, path: Path) -> Source:
    """The source with its folder made absolute, from the folder of the catalog file."""
    if source.folder is None:
        return source
    return msgspec.structs.replace(source, folder=str(path.parent / expanded(source.folder)))


def _checked(catalog: Catalog, path: Path) -> Catalog:
    """The catalog itself. Raises CatalogError if its entries contradict each other."""
    taken = dict.fromkeys(catalog.entries, "an entry")
    families = {name: entry.family for name, entry in catalog.entries.items()}
    families |= {name: drafter.family for name, drafter in catalog.drafters.items()}
    for name, family in families.items():
        if family not in catalog.families:
            known = ", ".join(sorted(catalog.families))
            raise CatalogError(f"{path}: {name!r}: family {family!r} is unknown. Use one of {known}.")
    for name in catalog.drafters:
        if name in taken:
            raise CatalogError(f"{path}: {name!r} is the name of a model and of a drafter. Rename one of them.")
        taken[name] = "a drafter"
    for name, entry in catalog.entries.items():
        for alias in entry.aliases:
            if not NAME.fullmatch(alias) or alias in taken:
                why = f"already means {taken[alias]}" if alias in taken else "is not a name"
                raise CatalogError(f"{path}: entry {name!r}: alias {alias[:80]!r} {why}.")
            taken[alias] = name
    return catalog


class _CatalogLoader(yaml.SafeLoader):
    """Refuses anchors, which can make a small file endless, and keys that appear twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="anchors are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} appears twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        data = read_regular(path, MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise CatalogError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB and was not read.")
        tree = yaml.load(data, Loader=_CatalogLoader)
    except OSError as error:
        raise CatalogError(f"{path} cannot be read: {error.strerror or error}.") from None
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise CatalogError(f"{path}{where}: {error.problem}. Correct it there.") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise CatalogError(f"{path} is not a catalog: {reason}.") from None
    if not isinstance(tree, dict):
        raise CatalogError(f"{path} is not a catalog: it needs format, families and entries.")
    return tree
