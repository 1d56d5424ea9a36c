"""To how many bits a drafter's weights are quantized while they are loaded, where nobody chose.

From M5 on verifying is several times faster than before, but a drafter's step is not: it reads all of its weights
for each token (mlxcel measured 10.7 ms on an M5 Max and 10.3 ms on an M1 Ultra, for a bfloat16 drafter of 0.8 GB).
Three programs report that drafters of 8 bits are accepted as often, and are 10 to 40% faster.
"""

from __future__ import annotations

from mlx_engine.protocol.apple_gpu import M5, generation_of
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.speculation import assistant_drafter
from mlx_engine.speculation.drafter import DrafterSource
from mlx_engine.speculation.drafters import has_folder

AS_STORED = 0
BITS_FROM_M5 = 8


def chosen_bits(setting: int | None, drafter: str, architecture: object) -> int | None:
    """Bits for one drafter; None: as stored. setting: AS_STORED, a number of bits, or None for the usual choice.

    architecture: MLX's name for the device.
    """
    if setting is not None:
        return setting or None
    generation = generation_of(architecture)
    is_fast = generation is not None and generation >= M5
    source = DrafterSource(drafter)
    return (
        BITS_FROM_M5 if is_fast and is_large_assistant(source) and not source.config.get("quantization") else None
    )


def is_large_assistant(source: DrafterSource) -> bool:
    """An assistant with a head of its own over the vocabulary: of 12B, 26B-A4B or 31B, and not of E2B or E4B."""
    if not has_folder(source):
        return False
    try:
        return assistant_drafter.reads(source) and not source.config.get("use_ordered_embeddings")
    except ModelFolderError:
        return False  # reported when the drafter is loaded
