"""One side of `real_size`, in a process of its own: arguments SIDE FOLDER PROMPT_TOKENS TOKENS."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from mlx_engine.decode import DecodeOptions, Session, generate
from mlx_engine.network.chunk_length import ChunkLength
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import load_target
from mlx_engine.protocol.prefill_chunk import chunk_range
from mlx_engine.speculation.sampling import Sampler
from mlx_engine.speculation.steering import DraftPolicies, ReplyControl, Steering


def ours(folder: Path, prompt: list[int], tokens: int) -> Iterator[None]:
    """Slipstream: a None when the model is loaded, and one per token."""
    target = load_target(folder, is_float32=not mx.metal.is_available())
    yield
    chunk = ChunkLength(chunk_range(None, is_moe=False, has_gpu=mx.metal.is_available()))
    prefix = PrefixCache(target, chunk)
    prefix.resume(prompt)
    steering = Steering(ReplyControl(0), DraftPolicies(None, 1, ()))
    options = DecodeOptions(Sampler(temperature=0), frozenset(), tokens, steering)
    at_s = time.perf_counter()

    def observe(done_tokens: int) -> None:
        nonlocal at_s
        now_s = time.perf_counter()
        chunk.observe(now_s - at_s)
        at_s = now_s

    for _ in generate(Session(target, [], prefix), options, observe):
        yield


def mlx_lm(folder: Path, prompt: list[int], tokens: int) -> Iterator[None]:
    """mlx-lm, with its own loader and loop; in float32 as well where there is no GPU."""
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    if not mx.metal.is_available():
        model.set_dtype(mx.float32)
        mx.eval(model.parameters())
    yield
    for token, _ in generate_step(mx.array(prompt), model, max_tokens=tokens):
        int(token)
        yield


def resident_bytes(name: str) -> int:
    """VmRSS or VmHWM of this process; the peak elsewhere than on Linux."""
    path = Path("/proc/self/status")
    if not path.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in path.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def main() -> None:
    """Print the facts as one line of JSON."""
    side, folder, prompt_tokens, tokens = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    prompt = [(37 * at) % 200_000 + 10 for at in range(prompt_tokens)]
    steps = (ours if side == "ours" else mlx_lm)(folder, prompt, tokens)
    moments = [(time.perf_counter(), time.process_time())]
    loaded_bytes = 0
    for number, _ in enumerate(steps):
        moments.append((time.perf_counter(), time.process_time()))
        if number == 0:
            loaded_bytes = resident_bytes("VmRSS")
    begun, loaded, first, *rest = moments
    later = rest[-1] if rest else first
    print(
        json.dumps(
            {
                "load_cpu_s": loaded[1] - begun[1],
                "loaded_bytes": loaded_bytes,
                "peak_bytes": resident_bytes("VmHWM"),
                "ttft_s": first[0] - loaded[0],
                "ttft_cpu_s": first[1] - loaded[1],
                "reply_cpu_s": later[1] - loaded[1],
                "token_s": (later[0] - first[0]) / max(1, len(rest)),
                "token_cpu_s": (later[1] - first[1]) / max(1, len(rest)),
            }
        )
    )


if __name__ == "__main__":
    main()
