"""The store's branch of the error tree in `mlx_engine.protocol.errors`.

SlipstreamError
└── StoreError            the store cannot do this; nothing was changed
    ├── NotStoredError    the chat or message does not exist
    ├── StoreBusyError    another program has locked the database for too long
    └── ImportRefusedError  a file to import is not a valid export
"""

from __future__ import annotations

from mlx_engine.protocol.errors import SlipstreamError


class StoreError(SlipstreamError):
    """The store cannot do what was asked; nothing was changed."""


class NotStoredError(StoreError):
    """The chat or message does not exist in the store."""


class StoreBusyError(StoreError):
    """Another program locked the database for longer than the store waits."""


class ImportRefusedError(StoreError):
    """A file to import is malformed; the message says which file and where in it."""
