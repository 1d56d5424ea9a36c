"""The precision that a loaded network is computed in.

MLX has no fast arithmetic for bfloat16 and float16 on a processor: a row of E2B, as it is published, takes about
eight times as long there as with the same numbers in float32.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

HALF_PRECISION = (mx.bfloat16, mx.float16)
FLOAT16 = (mx.float16,)


def convert_to_float32(module: nn.Module) -> int:
    """Convert what is stored in half precision, scales of quantized weights included; returns the bytes added.

    Quantized weights stay as they are. One array at a time, so that two copies of one array exist at most: keep no
    other references to the arrays of `module`.
    """
    return _convert(module, HALF_PRECISION, mx.float32)


def has_float16(module: nn.Module) -> bool:
    """Whether anything is computed in float16, whose largest number is 65,504."""
    return any(
        _is_stored_as(name, value, FLOAT16) for _, layer in module.named_modules() for name, value in layer.items()
    )


def convert_float16(module: nn.Module) -> str:
    """Convert float16 to a dtype that does not overflow, as above; returns its name.

    That is bfloat16 on a GPU: of the same size, and with the range that Gemma was trained in. A processor has no
    fast bfloat16.
    """
    wide = mx.bfloat16 if has_gpu() else mx.float32
    _convert(module, FLOAT16, wide)
    return str(wide).removeprefix("mlx.core.")


def has_gpu() -> bool:
    """MLX computes on a GPU."""
    return mx.default_device() != mx.Device(mx.cpu)


def _convert(module: nn.Module, stored: tuple[mx.Dtype, ...], dtype: mx.Dtype) -> int:
    """Convert arrays of the `stored` dtypes; returns the bytes added."""
    added_bytes = 0
    for _, layer in module.named_modules():
        for name in [name for name, value in layer.items() if _is_stored_as(name, value, stored)]:
            before_bytes = layer[name].nbytes
            layer[name] = layer[name].astype(dtype)
            mx.eval(layer[name])
            added_bytes += layer[name].nbytes - before_bytes
    return added_bytes


def _is_stored_as(name: str, value: object, stored: tuple[mx.Dtype, ...]) -> bool:
    return isinstance(value, mx.array) and value.dtype in stored and not name.startswith("_")
