"""What is measured: the pocket pair, and random pairs of each layout with the family's own number of layers.

A random pair is narrow enough for a laptop's processor and as deep as what it stands for, so that both the
host's work and arithmetic show. Its assistant is never right, so its drafts are replaced by a script that is
right three times in four, the same one on every side; see rows.py.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.models import gemma4

from mlx_engine.network.assistant import Assistant, AssistantConfig
from models import pocket
from tests.bench.environment import cache_folder
from tests.golden import layouts

WINDOW = 512
VOCAB_SIZE = 8192
CONTEXT_TOKENS = 32768


@dataclass(frozen=True, slots=True)
class PairFolders:
    """A pair on disk."""

    name: str
    target: Path
    drafter: Path

    @property
    def is_random(self) -> bool:
        """Says nothing that means anything, and has no tokenizer."""
        return self.name != "pocket"


@dataclass(frozen=True, slots=True)
class Size:
    """How large the stand-in for a variant is."""

    pattern: str
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    assistant_hidden: int
    global_kv_heads: int | None = None
    kv_shared_layers: int = 0
    experts: int = 0


SIZES = {
    "e2b": Size("ssssf" * 7, 512, 1024, 8, 1, 64, 128, kv_shared_layers=20),
    "e4b": Size("sssssf" * 7, 512, 1024, 8, 2, 64, 128, kv_shared_layers=18),
    "12b-unified": Size("sssssf" * 8, 512, 1024, 8, 4, 64, 256, global_kv_heads=1),
    "26b-a4b": Size("sssssf" * 5, 512, 512, 8, 4, 64, 256, global_kv_heads=1, experts=16),
    "31b": Size("sssssf" * 10, 512, 1024, 8, 4, 64, 256, global_kv_heads=1),
}
TINY = {
    name: dataclasses.replace(
        size, hidden=64, intermediate=64, heads=4, kv_heads=1, head_dim=16, assistant_hidden=32
    )
    for name, size in SIZES.items()
}
"""For trying the tool out."""
NAMES = ("pocket", *SIZES)


def find_pair(name: str, is_tiny: bool = False) -> PairFolders:
    """The pair's folders; a random one is written if it is not there yet."""
    if name == "pocket":
        return PairFolders(name, pocket.TARGET_FOLDER, pocket.DRAFTER_FOLDER)
    folder = cache_folder() / "pairs" / (f"{name}-tiny" if is_tiny else name)
    pair = PairFolders(name, folder / "target", folder / "target-assistant")
    size = (TINY if is_tiny else SIZES)[name]
    layout = next(each for each in layouts.LAYOUTS if each.name == name)
    configs = _target_config(layout, size), _assistant_config(layout, size)
    if not _is_there(pair.drafter, configs[1]) or not _is_there(pair.target, configs[0]):
        _write(pair, *configs)
    return pair


def _is_there(folder: Path, config: dict[str, Any]) -> bool:
    path = folder / "config.json"
    return path.exists() and json.loads(path.read_text()) == config


def _shared(size: Size) -> dict[str, Any]:
    return {
        "global_head_dim": 2 * size.head_dim,
        "head_dim": size.head_dim,
        "max_position_embeddings": CONTEXT_TOKENS,
        "num_attention_heads": size.heads,
        "num_global_key_value_heads": size.global_kv_heads,
        "num_key_value_heads": size.kv_heads,
        "sliding_window": WINDOW,
        "vocab_size": VOCAB_SIZE,
    }


def _target_config(layout: layouts.Layout, size: Size) -> dict[str, Any]:
    config = layouts.target_config(layout)
    config["vocab_size"] = VOCAB_SIZE
    config["text_config"] |= _shared(size) | {
        "hidden_size": size.hidden,
        "hidden_size_per_layer_input": size.hidden // 8 if layout.per_layer_input_size else 0,
        "intermediate_size": size.intermediate,
        "layer_types": [layouts.SLIDING if kind == "s" else layouts.FULL for kind in size.pattern],
        "moe_intermediate_size": size.intermediate // 4 if size.experts else None,
        "num_experts": size.experts or None,
        "num_hidden_layers": len(size.pattern),
        "num_kv_shared_layers": size.kv_shared_layers,
        "vocab_size_per_layer_input": VOCAB_SIZE,
    }
    return config


def _assistant_config(layout: layouts.Layout, size: Size) -> dict[str, Any]:
    config = layouts.assistant_config(layout)
    config |= {"backbone_hidden_size": size.hidden, "num_centroids": 64, "centroid_intermediate_top_k": 16}
    config["text_config"] |= _shared(size) | {
        "hidden_size": size.assistant_hidden,
        "intermediate_size": 4 * size.assistant_hidden,
    }
    return config


def _write(pair: PairFolders, target: dict[str, Any], assistant: dict[str, Any]) -> None:
    pair.target.mkdir(parents=True, exist_ok=True)
    pair.drafter.mkdir(exist_ok=True)
    text = dict(target["text_config"])
    model = gemma4.Model(gemma4.ModelArgs(model_type="gemma4", text_config=text, vocab_size=VOCAB_SIZE))
    _save(pair.target, target, model, ("language_model.model.", "model.language_model."))
    _save(pair.drafter, assistant, Assistant(AssistantConfig.from_dict(assistant)), ("", ""))


def _save(folder: Path, config: dict[str, Any], module: Any, rename: tuple[str, str]) -> None:
    _randomise(module)
    weights = {name.replace(*rename): array for name, array in tree_flatten(module.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config))


def _randomise(module: Any) -> None:
    keys = iter(mx.random.split(mx.random.key(1), 10_000))

    def draw(path: str, old: mx.array) -> mx.array:
        if old.dtype != mx.float32 or old.ndim < 2:
            return old
        # An embedding's scale is that of the scores: wide enough apart for no two to be all but tied.
        scale = 0.3 if "embed_tokens" in path else old.shape[-1] ** -0.5
        return mx.random.normal(old.shape, key=next(keys)) * scale

    module.update(tree_map_with_path(draw, module.parameters()))
    mx.eval(module.parameters())
