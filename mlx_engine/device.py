"""What MLX reports about this machine; `python -m mlx_engine.device` prints it as JSON, for front ends."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import mlx.core as mx


def device_facts() -> dict[str, Any]:
    """Device, its memory in bytes if MLX reports it, and versions."""
    info = mx.device_info()
    return {
        "device": str(mx.default_device()),
        "name": info.get("device_name"),
        "architecture": info.get("architecture"),
        "is_metal": mx.metal.is_available(),
        "memory_bytes": info.get("memory_size"),
        "working_set_bytes": info.get("max_recommended_working_set_size"),
        "versions": {name: version(name) for name in ("mlx", "mlx-lm")},
    }


if __name__ == "__main__":
    print(json.dumps(device_facts()))
