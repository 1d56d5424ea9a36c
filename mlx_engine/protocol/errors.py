"""What can go wrong, as one tree.

    SlipstreamError
    ├── ModelFolderError      a model folder cannot be loaded as it is
    │   └── PairMismatchError the drafter was made for another target
    ├── RequestError          this request cannot be answered as it was asked
    │   ├── EmptyPromptError
    │   └── ContextOverflowError
    ├── BrokenNumbersError    the target's scores are no longer numbers
    ├── RollbackError         a cache was asked to forget more than it can
    └── EngineDiedError       the engine's process ended; the chat goes on

Every message says what happened, where, and what to do, in words fit to be shown to a person.
"""

from __future__ import annotations


class SlipstreamError(Exception):
    """Root of the tree: whatever a person may be shown as one sentence."""


class ModelFolderError(SlipstreamError):
    """A model folder is missing, incomplete, malformed or of a kind that is not supported."""


class PairMismatchError(ModelFolderError):
    """The drafter does not belong to the target; the message names both numbers."""


class RequestError(SlipstreamError):
    """The request itself cannot be served: an option out of range, a malformed message."""


class EmptyPromptError(RequestError):
    """There is nothing to answer."""


class ContextOverflowError(RequestError):
    """The prompt does not fit into the model's context."""


class BrokenNumbersError(SlipstreamError):
    """The target gave scores that are not finite. What was said before stands; nothing is kept of its state."""


class RollbackError(SlipstreamError):
    """A cache cannot forget that many tokens exactly."""


class EngineDiedError(SlipstreamError):
    """The engine's process ended; the message says how. The next request starts a new one."""
