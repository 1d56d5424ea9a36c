"""The branch for models on disk and on the hub, of the tree in `mlx_engine.protocol.errors`.

SlipstreamError
├── ModelFolderError      (the engine's: files of a model are missing, malformed, or of another kind)
└── ModelsError           a model is not on this machine, or cannot be removed or converted
    ├── CatalogError      a catalog file cannot be used, or a name is in no catalog
    ├── PathError         a typed path cannot be one
    └── PullError         the hub, the network or the disk failed; `reason` says which
"""

from __future__ import annotations

from typing import Literal

from mlx_engine.protocol.errors import SlipstreamError

Reason = Literal[
    "name",
    "offline",
    "gated",
    "private",
    "missing",
    "busy",
    "server",
    "network",
    "disk",
    "room",
    "content",
    "died",
]


class ModelsError(SlipstreamError):
    """A model is not on this machine, or something cannot be done with it."""


class CatalogError(ModelsError):
    """A catalog file cannot be used, or a name is not in the catalog."""


class PathError(ModelsError):
    """A typed path cannot be one, or names the home folder of an unknown user."""


class PullError(ModelsError):
    """A pull cannot start or continue. What has arrived is kept, unless its content is wrong."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
