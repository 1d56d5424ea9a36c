"""What the store can refuse, as a branch of the tree in `mlx_engine.protocol.errors`.

SlipstreamError
└── StoreError            the store cannot do this; nothing was changed
    ├── NotStoredError    there is no such chat or message
    ├── StoreBusyError    another program holds the database for too long
    └── ImportRefusedError  a file to import is not what an export writes
"""

from __future__ import annotations

from mlx_engine.protocol.errors import SlipstreamError


class StoreError(SlipstreamError):
    """The store cannot do what was asked; it is as it was before."""


class NotStoredError(StoreError):
    """The chat or message asked for is not in the store."""


class StoreBusyError(StoreError):
    """Another program held the database longer than the store waits."""


class ImportRefusedError(StoreError):
    """A file to import is malformed; the message names the file and the place in it."""
