"""What can go wrong with models on disk and on the hub, as one tree.

    ModelsError
    ├── CatalogError      a catalog file, or a name that is in none
    ├── ModelFolderError   files of a model are missing, malformed, or not what they should be
    │   └── PairMismatchError     the drafter was made for another target
    ├── PathError         a path that was typed means no place
    └── FetchError        the hub, the network or the disk did not give what was asked; `reason` says which

Every message says what happened, where, and what to do, in words fit to be shown to a person.
"""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "name", "offline", "gated", "private", "missing", "busy", "server", "network", "disk", "content", "died"
]


class ModelsError(Exception):
    """Root of the tree: whatever a person may be shown as one sentence."""


class CatalogError(ModelsError):
    """A catalog file cannot be used, or a name is not in the catalog."""


class PathError(ModelsError):
    """A path that a person typed cannot be one, or begins at the home folder of nobody."""


class FetchError(ModelsError):
    """A download cannot begin or go on. What has come so far is kept, unless it was wrong."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
