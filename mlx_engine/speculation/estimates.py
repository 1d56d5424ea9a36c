"""What the automatic draft has learned about a pair on a machine, kept in a file from run to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from mlx_engine.files.atomic import replace_file
from mlx_engine.files.regular_file import read_regular
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH

VERSION = 3
"""Version of the meaning of these figures. A file of another version is not used."""
LENGTHS = MAX_DRAFT_LENGTH + 1
SAMPLES_KEPT = 31
"""How many times are kept for each length."""
SHORTEST_S, LONGEST_S = 1e-6, 1e6
"""Bounds of a believable time for one round."""
MAX_MISSES = 6
MOST_SAVED_TOKENS = 64.0
MAX_DRAFTERS = 8
MAX_FILE_BYTES = 1 << 18
"""Several times the size of a full file."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Seconds = Annotated[float, msgspec.Meta(ge=SHORTEST_S, le=LONGEST_S)]
ByPosition = Annotated[list[Count], msgspec.Meta(min_length=MAX_DRAFT_LENGTH, max_length=MAX_DRAFT_LENGTH)]
Samples = Annotated[list[Seconds], msgspec.Meta(max_length=SAMPLES_KEPT)]
ByLength = Annotated[list[Samples], msgspec.Meta(min_length=MAX_DRAFT_LENGTH, max_length=MAX_DRAFT_LENGTH)]


def _no_drafts() -> list[float]:
    return [0.0] * MAX_DRAFT_LENGTH


class AcceptanceEstimates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a drafter's drafts were accepted."""

    first_draft: Share
    """The first ones of a round, over many rounds."""
    drafted: ByPosition = msgspec.field(default_factory=_no_drafts)
    """Drafts by position, older ones fading, without those behind a rejected draft."""
    accepted: ByPosition = msgspec.field(default_factory=_no_drafts)
    """How many of them were accepted."""


class DrafterEstimates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one drafter."""

    rounds_s: ByLength
    """Seconds of the last rounds of each length 1 to 16, oldest first."""
    acceptance: AcceptanceEstimates | None = None
    """In replies without thinking; None: it has not drafted there."""
    acceptance_thinking: AcceptanceEstimates | None = None
    """In replies with thinking."""


class Estimates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `AdaptiveDraft` has learned."""

    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    drafters: Annotated[dict[str, DrafterEstimates], msgspec.Meta(max_length=MAX_DRAFTERS)]
    """By the name of their kind."""
    plain_rounds_s: Samples
    """Seconds of the last plain rounds, oldest first."""
    context_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Length of the context in which these times were measured."""
    misses: Annotated[int, msgspec.Meta(ge=0, le=MAX_MISSES)] = 0
    """Recent drafting rounds without an accepted draft; an accepted one halves them."""
    copy_misses: Annotated[int, msgspec.Meta(ge=0, le=MAX_MISSES)] = 0
    """The same of rounds that copied."""
    saved_tokens: Annotated[float, msgspec.Meta(ge=-MOST_SAVED_TOKENS, le=MOST_SAVED_TOKENS)] = 0.0
    """What the next probe may cost already, so that short runs probe no more often than a long one."""


def load(path: Path) -> tuple[Estimates | None, str | None]:
    """The estimates in the file, or a notice that they cannot be used; neither if there is no file.

    Never raises.
    """
    try:
        body = read_regular(path, MAX_FILE_BYTES + 1)
        kept = msgspec.json.decode(body, type=Estimates)
        both = [(each.acceptance, each.acceptance_thinking) for each in kept.drafters.values()]
        known = [each for pair in both for each in pair if each]
        if any(a > d for each in known for a, d in zip(each.accepted, each.drafted)):
            raise ValueError("more drafts accepted than drafted")
        return kept, None
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        return None, (
            f"{path}: the saved estimates for automatic drafting cannot be used ({why}). "
            "They are measured again while you chat, and the file is replaced after the next reply."
        )


def save(path: Path, estimates: Estimates) -> None:
    """Replace the file, all of it or nothing, readable by its owner only. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, msgspec.json.encode(estimates), is_synced=False)  # learned again if it is lost
