"""What was learned about a pair on a machine, and the file that keeps it from run to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from mlx_engine.files.atomic import replace_file
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH

VERSION = 1
"""Of the meaning of the figures below. A file of another version is dropped."""
LENGTHS = MAX_DRAFT_LENGTH + 1
SAMPLES_KEPT = 31
"""Rounds of each length whose times are kept."""
SHORTEST_S, LONGEST_S = 1e-6, 1e6
"""No round of a model takes less or more."""
MAX_FILE_BYTES = 1 << 16
"""Several times what a full file takes."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Seconds = Annotated[float, msgspec.Meta(ge=SHORTEST_S, le=LONGEST_S)]
ByPosition = Annotated[list[Count], msgspec.Meta(min_length=MAX_DRAFT_LENGTH, max_length=MAX_DRAFT_LENGTH)]
Samples = Annotated[list[Seconds], msgspec.Meta(max_length=SAMPLES_KEPT)]


class Estimates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `AdaptiveLength` goes by."""

    usual: Share
    """How often the first draft stands, over a long time."""
    tried: ByPosition
    """Drafts whose turn came, by position, the older ones fading."""
    stood: ByPosition
    """Those of them that were accepted."""
    rounds_s: Annotated[list[Samples], msgspec.Meta(min_length=LENGTHS, max_length=LENGTHS)]
    """Durations of the last rounds of each length 0 to 16, oldest first."""
    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    context_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The length of the context in which they took that."""


def load(path: Path) -> tuple[Estimates | None, str | None]:
    """What the file holds, or a notice that it cannot be used; neither if there is none. Raises nothing."""
    try:
        with path.open("rb") as file:
            body = file.read(MAX_FILE_BYTES + 1)
        kept = msgspec.json.decode(body, type=Estimates)
        if any(stood > tried for stood, tried in zip(kept.stood, kept.tried)):
            raise ValueError("more drafts accepted than tried")
        return kept, None
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        return None, (
            f"{path}: what was learned about draft lengths cannot be used ({error}). "
            "It is learned anew while you chat, and the file is replaced after the next reply."
        )


def save(path: Path, estimates: Estimates) -> None:
    """Replace the file, all of it or nothing, readable by its owner only. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, msgspec.json.encode(estimates), is_synced=False)  # learned again if it is lost
