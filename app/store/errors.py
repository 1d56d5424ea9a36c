"""The store's branch of the error tree in `mlx_engine.protocol.errors`.

SlipstreamError
└── StoreError            the store cannot do this; nothing was changed
    ├── NotStoredError    the chat or message does not exist
    ├── StoreBusyError    another program has locked the database for too long
    ├── StoreReplacedError  the file has become another one
    ├── RunningElsewhereError  another window is writing the reply
    ├── TakenOverError    another window has taken over the reply
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


class StoreReplacedError(StoreError):
    """The file has been replaced: ids from before mean nothing in it. The next call uses the new file."""


class RunningElsewhereError(StoreError):
    """Another process is writing the reply."""


class TakenOverError(StoreError):
    """The reply is no longer written by this process, because another one has gone on with it."""


class ImportRefusedError(StoreError):
    """A file to import is malformed; the message says which file and where in it."""
