"""Everything that can go wrong, as one tree for the whole project.

    SlipstreamError
    ├── ModelFolderError      a model folder cannot be used as it is
    │   └── PairMismatchError the drafter was made for another target
    ├── RequestError          a request cannot be answered as it was sent
    │   ├── EmptyPromptError
    │   └── ContextOverflowError
    ├── BrokenNumbersError    the target's logits are no longer finite
    ├── RollbackError         a cache cannot forget as much as it was asked to
    ├── EngineDiedError       the engine's process ended; the chat goes on
    ├── ModelsError           a model cannot be found, pulled or removed: see models/errors.py
    └── StoreError, SettingsError, AttachmentError, EditorError: beside what raises them, in app

Every message is a sentence that can be shown as it is: what happened, where, and what to do.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class SlipstreamError(Exception):
    """Root of the tree; its message can be shown as it is."""


class ModelFolderError(SlipstreamError):
    """A model folder is missing, incomplete, malformed or of a kind that is not supported."""


class PairMismatchError(ModelFolderError):
    """The drafter was made for another target; the message names both numbers."""


class RequestError(SlipstreamError):
    """An option of the request is out of range, or a message is malformed."""

    def __init__(self, message: str, about: str | None = None) -> None:
        super().__init__(message)
        self.about = about
        """See Failed."""


class EmptyPromptError(RequestError):
    """The prompt is empty."""


class ContextOverflowError(RequestError):
    """The prompt does not fit the model's context."""


@contextmanager
def naming(about: str) -> Iterator[None]:
    """What RequestErrors from inside this are about, unless they say more themselves."""
    try:
        yield
    except RequestError as error:
        error.about = error.about or about
        raise


class BrokenNumbersError(SlipstreamError):
    """The target's logits are not finite. The text up to there is kept; the target's state is not."""


class RollbackError(SlipstreamError):
    """A cache cannot forget that many tokens exactly."""


class EngineDiedError(SlipstreamError):
    """The engine's process ended; the message says how. The next request starts a new process."""


def how_ended(status: int) -> str:
    """How a process ended, as a clause: `by signal SIGKILL`. status: negative for a signal, as in subprocess."""
    if status >= 0:
        return f"with exit status {status}"
    try:
        return f"by signal {signal.Signals(-status).name}"
    except ValueError:  # most real-time signals have no name
        return f"by signal {-status}"
