"""Settings of MLX's Metal backend, which it reads from the environment before its first computation.

A person's own variables always apply.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from mlx_engine.protocol.apple_gpu import M1, generation_of

NEVER = str(1 << 30)


def choose_settings(environment: MutableMapping[str, str], architecture: object) -> None:
    """Add what this device needs. architecture: MLX's name for it, such as `applegpu_g13s`."""
    # Since 0.31, M5 multiplies float32 with the 11 bits of TF32 from two rows on (mlx #4411): a verify pass would
    # then choose other tokens than plain decoding does in float32.
    environment.setdefault("MLX_ENABLE_TF32", "0")
    # From 1,024 keys on, MLX has a kernel of its own for one row at head size 512 (mlx #4459). M1 may refuse the
    # number of threads that it asks for (mlx #3885), which would end the process in the middle of a long chat.
    if generation_of(architecture) == M1:
        environment.setdefault("MLX_SDPA_D512_MIN_KL", NEVER)
