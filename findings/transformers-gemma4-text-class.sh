#!/usr/bin/env bash
# transformers 5.24.0: `Gemma4ForCausalLM.from_pretrained` on a folder that `Gemma4ForConditionalGeneration` has saved
# does not raise, and gives a text model with random weights.
#
# Expected: the text weights of the folder (their names begin with `model.language_model.`), or an error.
# Seen: a report is printed, loading succeeds, and the embedding is not the stored one; saved again, the random weights
# look like any checkpoint. Text exports of fine-tunes made this way are noise.
# Fails if the stored embedding is loaded, or the load is refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.13.0 safetensors==0.8.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

text = Gemma4TextConfig(
    vocab_size=64, vocab_size_per_layer_input=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, head_dim=8, global_head_dim=8, hidden_size_per_layer_input=0,
    num_kv_shared_layers=0, layer_types=["sliding_attention", "full_attention"], sliding_window=8,
)
torch.manual_seed(1)
own = Gemma4ForCausalLM(text)
weights = {name.replace("model.", "model.language_model.", 1): value.clone() for name, value in own.state_dict().items()
           if name.startswith("model.")}
stored = weights["model.language_model.embed_tokens.weight"]
whole = Path("whole")
whole.mkdir()
save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
config = {"model_type": "gemma4", "architectures": ["Gemma4ForConditionalGeneration"], "text_config": text.to_dict()}
(whole / "config.json").write_text(json.dumps(config))

try:
    loaded = Gemma4ForCausalLM.from_pretrained(whole)
except Exception as error:
    raise SystemExit(f"the load is refused now: {error!r}")
is_stored = torch.equal(loaded.get_input_embeddings().weight, stored)
print(f"loaded {type(loaded).__name__}; its embedding is the stored one: {is_stored}")
assert not is_stored, "the stored weights are loaded now"
PYTHON
