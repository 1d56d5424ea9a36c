"""Apple's GPU generations, by MLX's name for the device (`applegpu_g13s` is an M1 Max)."""

from __future__ import annotations

import re

M1, M3, M5 = 13, 15, 17


def generation_of(architecture: object) -> int | None:
    """The GPU's generation, such as 15 for all of M3; None for another maker's device."""
    match = re.match(r"applegpu_g(\d+)", str(architecture))
    return int(match[1]) if match else None
