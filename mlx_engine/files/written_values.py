"""Numbers in JSON files as people and tools write them: 1, 1.0 and "1" are the same number."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any) -> float | None:
    """A finite number; None if the value is not one."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole_number(value: Any) -> int | None:
    """A whole number; None if the value is not one."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def truth(value: Any) -> bool | None:
    """True or false, also as a word or as 1 and 0; None if the value is neither."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    found = number(int(value) if isinstance(value, bool) else value)
    return bool(found) if found in (0, 1) else None


def token_ids(value: Any) -> tuple[frozenset[int], bool]:
    """The ids in one id or a list of ids, and whether every entry was one. None is an empty list."""
    entries = value if isinstance(value, list) else [] if value is None else [value]
    ids = [whole_number(entry) for entry in entries]
    return frozenset(id for id in ids if id is not None and id >= 0), all(id is not None for id in ids)
