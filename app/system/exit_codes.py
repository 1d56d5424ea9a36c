"""Exit codes of all commands."""

from __future__ import annotations

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
