"""How often the screen is drawn during a reply: often enough to read along, without slowing the engine."""

from __future__ import annotations

import os

HAS_SPARE_CORES = (os.cpu_count() or 1) > 2
"""With two cores the engine needs both, to build passes and to compute them, so drawing slows it down."""

DRAW_S = 0.1 if HAS_SPARE_CORES else 0.2
"""Between two appends to a reply."""
FIRST_DRAW_S = 0.02
"""Before the first words of a reply."""
GAUGES_S = 0.25 if HAS_SPARE_CORES else 0.5
"""Between two readings of the gauges; nobody can read faster."""
ROUNDS_S = DRAW_S / 2
"""How long rounds are collected before they are fetched together."""
