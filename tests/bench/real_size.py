"""`python -m tests.bench.real_size`: a model of E2B's real shape beside mlx-lm.

Random weights in the published shapes, 4-bit in groups of 64 (2.6 GB), written shard by shard into a temporary
folder. `--size thin` is the same depth, heads and vocabulary at a hidden size of 256, in float32. Without a GPU
both sides compute in float32: a bfloat16 row takes eight times as long there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_engine.network.mlx_lm_gemma4 import gemma4
from models.machine import read_machine
from models.memory_fit import fit, size_of_folders

SHARD_BYTES = 256 << 20
GROUP, BITS = 64, 4
SEED = 7
SIDES = ("ours", "mlx-lm")


@dataclass(frozen=True, slots=True)
class Size:
    """What is written."""

    hidden: int
    intermediate: int
    per_layer: int
    is_quantized: bool


SIZES = {"e2b": Size(1536, 6144, 256, True), "thin": Size(256, 512, 0, False)}


def config_of(size: Size) -> dict[str, Any]:
    """The config.json of E2B's layout."""
    kinds = (["sliding_attention"] * 4 + ["full_attention"]) * 7
    text = {
        "model_type": "gemma4_text", "hidden_size": size.hidden, "intermediate_size": size.intermediate,
        "num_hidden_layers": len(kinds), "layer_types": kinds, "num_attention_heads": 8, "num_key_value_heads": 1,
        "head_dim": 256, "global_head_dim": 512, "num_kv_shared_layers": 20, "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": size.per_layer, "vocab_size": 262_144,
        "vocab_size_per_layer_input": 262_144,
        "sliding_window": 512, "max_position_embeddings": 131_072, "final_logit_softcapping": 30.0,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1e6, "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
    }  # fmt: skip
    config: dict[str, Any] = {"model_type": "gemma4", "vocab_size": 262_144, "text_config": text}
    if size.is_quantized:
        config["quantization"] = {"group_size": GROUP, "bits": BITS}
    return config


def write(folder: Path, size: Size) -> None:
    """Write the model. No more than a shard of it is in memory."""
    config = config_of(size)
    (folder / "config.json").write_text(json.dumps(config))
    model = gemma4.Model(gemma4.ModelArgs.from_dict(json.loads(json.dumps(config))))
    if size.is_quantized:
        nn.quantize(model, group_size=GROUP, bits=BITS)
    # Nothing has been computed: these are only shapes.
    shapes = [(name, array.shape, array.dtype) for name, array in tree_flatten(model.parameters())]
    del model
    draw = np.random.default_rng(SEED)
    names: dict[str, str] = {}
    shard: dict[str, mx.array] = {}
    for index, (name, shape, dtype) in enumerate(shapes):
        shard[name] = _random(name, shape, dtype, draw, size.is_quantized)
        if sum(array.nbytes for array in shard.values()) >= SHARD_BYTES or index == len(shapes) - 1:
            file = f"model-{len(set(names.values())) + 1:05}.safetensors"
            mx.save_safetensors(str(folder / file), shard, {"format": "mlx"})
            names |= dict.fromkeys(shard, file)
            shard = {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def _random(
    name: str, shape: tuple[int, ...], dtype: mx.Dtype, draw: np.random.Generator, is_quantized: bool
) -> mx.array:
    """Weights of about the size that trained ones have; scales and norms in bfloat16 where weights are packed."""
    stored = mx.bfloat16 if is_quantized else mx.float32
    if dtype == mx.uint32:
        return mx.array(draw.integers(0, 1 << 32, shape, dtype=np.uint32))
    if name.endswith((".scales", ".biases")):
        steps = 0.004 if name.endswith(".scales") else -0.03
        return mx.full(shape, steps, dtype=stored)
    if "norm" in name or "scalar" in name:
        return mx.ones(shape, dtype=stored)
    return mx.array(draw.standard_normal(shape, dtype=np.float32) * 0.02).astype(stored)


def measure(folder: Path, side: str, prompt_tokens: int, tokens: int) -> dict[str, float]:
    """What one side needs, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.bench.real_size_side",
        side,
        str(folder),
        str(prompt_tokens),
        str(tokens),
    ]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return facts


def rows(folder: Path, prompt_tokens: int, tokens: int) -> Iterator[tuple[str, str]]:
    """What is printed, row by row."""
    facts = {side: measure(folder, side, prompt_tokens, tokens) for side in SIDES}
    memory = fit(size_of_folders(folder, None), read_machine(), prompt_tokens + tokens)
    context = sum(line.size_bytes or 0 for line in memory.lines[2:])
    weights = (memory.needed_bytes or 0) - context
    peak = facts["ours"]["peak_bytes"]
    yield (
        "predicted: weights · with this context",
        f"{weights / 1e9:.2f} · {(memory.needed_bytes or 0) / 1e9:.2f} GB",
    )
    yield "peak resident memory / predicted", f"{peak / (memory.needed_bytes or 1):.2f}"
    for fact, what, scale, unit in (
        ("load_cpu_s", "load, processor time", 1, "s"),
        ("loaded_bytes", "resident memory after loading", 1e9, "GB"),
        ("peak_bytes", "peak resident memory", 1e9, "GB"),
        ("ttft_cpu_s", f"first token after {prompt_tokens}, processor time", 1, "s"),
        ("token_cpu_s", "a token of plain decoding, processor time", 1, "s"),
        ("reply_cpu_s", "prompt and reply together, processor time", 1, "s"),
        ("token_s", "a token of plain decoding", 1, "s"),
    ):
        ours, theirs = (facts[side][fact] / scale for side in SIDES)
        yield what, f"{ours:.2f} {unit} against {theirs:.2f} {unit}: {ours / theirs:.2f}"


def main() -> int:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.real_size", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="e2b")
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=4, help="of the reply")
    parser.add_argument("--folder", type=Path, help="keep the model there, and use it if it is there already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slipstream-real-size-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "model.safetensors.index.json").exists():
            write(folder, SIZES[options.size])
        print(f"| {options.size}: Slipstream against mlx-lm | |\n|---|---|", flush=True)
        for what, figure in rows(folder, options.prompt_tokens, options.tokens):
            print(f"| {what} | {figure} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
