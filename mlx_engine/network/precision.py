"""The precision that a loaded network is computed in.

MLX has no fast arithmetic for bfloat16 and float16 on a processor: a row of E2B, as it is published, takes about
eight times as long there as with the same numbers in float32.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

HALF_PRECISION = (mx.bfloat16, mx.float16)


def convert_to_float32(module: nn.Module) -> int:
    """Convert what is stored in half precision, scales of quantized weights included; returns the bytes added.

    Quantized weights stay as they are. One array at a time, so that two copies of one array exist at most: keep no
    other references to the arrays of `module`.
    """
    added_bytes = 0
    for _, layer in module.named_modules():
        for name in [name for name, value in layer.items() if _is_half(name, value)]:
            layer[name] = layer[name].astype(mx.float32)
            mx.eval(layer[name])
            added_bytes += layer[name].nbytes // 2
    return added_bytes


def _is_half(name: str, value: object) -> bool:
    return isinstance(value, mx.array) and value.dtype in HALF_PRECISION and not name.startswith("_")
