"""How long a test waits for something before it fails."""

from __future__ import annotations

PATIENCE_S = 60.0
"""For one step, on a busy machine with three cores. A passing test never waits this long."""
PROGRAM_PATIENCE_S = 2 * PATIENCE_S
"""For a program that starts, loads a model and answers."""
