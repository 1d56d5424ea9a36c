"""A target stored in float16, whose largest number is 65,504: Gemma's hidden states can exceed it.

They become infinite then, and every logit after them NaN. Where float16 suffices, it is left as it is, since older
GPUs compute it faster than bfloat16.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_engine.network.target import Gemma4Target
from mlx_engine.protocol.events import Message
from mlx_engine.text.prompt import ChatFormat


def widen_if_overflowing(target: Gemma4Target, format: ChatFormat, name: str) -> str | None:
    """Compute a float16 target in a wider dtype if a short prompt overflows; the notice for people.

    Raises ModelFolderError, and what MLX raises for shapes that do not fit.
    """
    if not target.has_float16:
        return None
    prompt = mx.array([format.render([Message("user", "Hello")]).ids])
    hidden = target.forward(prompt, target.new_cache())
    if mx.all(mx.isfinite(target.logits(hidden))).item():
        return None
    dtype_name = target.widen_float16()
    return f"{name} is stored in float16, and its numbers overflow there. It is computed in {dtype_name} instead."
