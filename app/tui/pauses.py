"""How often the screen is drawn while a reply streams in: as often as is of use, and as the engine can spare."""

from __future__ import annotations

import os

HAS_SPARE_CORES = (os.cpu_count() or 1) > 2
"""On two cores the engine needs both, to put passes together and to compute: what is drawn slows it down."""

DRAW_S = 0.1 if HAS_SPARE_CORES else 0.2
"""Between two appends to a reply: fast enough to read along."""
FIRST_DRAW_S = 0.02
"""The first words appear at once."""
GAUGES_S = 0.25 if HAS_SPARE_CORES else 0.5
"""Between two moves of the gauges: more often is not readable."""
ROUNDS_S = DRAW_S / 2
"""Between two looks at the rounds that the engine reports, at the least."""
