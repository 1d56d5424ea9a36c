"""A random pair on disk with the pocket pair's tokenizer: talks like any other, and says nothing sensible."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_engine.network.assistant import Assistant, AssistantConfig
from mlx_engine.network.mlx_lm_gemma4 import gemma4, gemma4_text
from models.pocket import TARGET_FOLDER
from tests.fakes import tiny

VOCAB = 2048


def write_pair(
    folder: Path,
    context_tokens: int = 512,
    seed: int = 3,
    sizes: Mapping[str, Any] | None = None,
    has_centroids: bool = True,
) -> tuple[Path, Path]:
    """Write `target` and `target-assistant` below `folder`; their paths. sizes: in place of the tiny ones.
    has_centroids: the assistant has E2B's head, and not one over the whole vocabulary."""
    text = tiny.text_config("e2b") | {"vocab_size": VOCAB, "vocab_size_per_layer_input": VOCAB} | dict(sizes or {})
    text["max_position_embeddings"] = context_tokens
    config = {"model_type": "gemma4", "vocab_size": VOCAB, "text_config": text}
    target, assistant = folder / "target", folder / "target-assistant"
    target.mkdir(parents=True)
    assistant.mkdir()
    model = gemma4.Model(gemma4.ModelArgs(text_config=dict(text), vocab_size=VOCAB))
    tiny.randomise(model, seed)
    _write(target, config, model, ("language_model.model.", "model.language_model."))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TARGET_FOLDER / name, target)
    (target / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 106], "do_sample": False}))
    config = _assistant_config(text) | {"use_ordered_embeddings": has_centroids}
    network = Assistant(AssistantConfig.from_dict(config))
    tiny.randomise(network, seed + 1)
    _write(assistant, config, network, ("", ""))
    return target, assistant


def _assistant_config(text: dict[str, Any]) -> dict[str, Any]:
    own = text | {
        "layer_types": ["sliding_attention", "full_attention"],
        "num_hidden_layers": 2,
        "hidden_size": 16,
    }
    return {
        "model_type": "gemma4_assistant",
        "backbone_hidden_size": text["hidden_size"],
        "use_ordered_embeddings": True,
        "num_centroids": 64,
        "centroid_intermediate_top_k": 8,
        "text_config": own,
    }


def _write(folder: Path, config: dict[str, Any], module: gemma4_text.nn.Module, rename: tuple[str, str]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    weights = {name.replace(*rename): array for name, array in tree_flatten(module.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
