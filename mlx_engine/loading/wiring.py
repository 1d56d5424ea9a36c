"""`--wire`: the weights stay in memory, wired, on Metal."""

from __future__ import annotations

import platform

import mlx.core as mx

FIRST_MACOS = 15
"""MLX wires memory by residency sets (`set_wired_limit`), which came with macOS 15."""


def wire_weights(limit_bytes: int | None, mac_version: str | None = None) -> str | None:
    """Keep what is in memory now, the weights, from being paged out; later conversations are not covered.

    limit_bytes: the most memory that the device recommends. mac_version: such as `14.6`; None: this system's.
    Returns a notice if nothing was wired.
    """
    if not mx.metal.is_available():
        return "--wire does nothing here: without Metal there is no memory to wire."
    number = (platform.mac_ver()[0] if mac_version is None else mac_version).partition(".")[0]
    if number.isdecimal() and int(number) < FIRST_MACOS:
        return f"--wire does nothing on macOS {number}: MLX wires memory from macOS {FIRST_MACOS} on."
    mx.set_wired_limit(min(mx.get_active_memory(), limit_bytes or 0))
    return None
