"""How many cases a test tries: few where every change waits for it, many with `SLIPSTREAM_TESTS=many`."""

from __future__ import annotations

import os


def cases(few: int, many: int) -> int:
    """How many cases to try."""
    return many if os.environ.get("SLIPSTREAM_TESTS") == "many" else few
