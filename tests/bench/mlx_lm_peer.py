"""mlx-lm's plain decoding: its own `generate_step` on its own model."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.models import gemma4
from mlx_lm.sample_utils import make_sampler

from tests.bench.serve import Reply, Request, Timeline, serve


class Peer:
    """One target, loaded once."""

    def load(self, request: Request) -> Reply:
        """Its own classes and its own reading of the weights; no tokenizer, as prompts come as token ids."""
        folder = Path(request["target"])
        config = json.loads((folder / "config.json").read_text())
        model = gemma4.Model(gemma4.ModelArgs.from_dict(config))
        model.load_weights(list(model.sanitize(mx.load(str(folder / "model.safetensors"))).items()))
        model.eval()
        mx.eval(model.parameters())
        self._model = model
        return {}

    def generate(self, request: Request) -> Reply:
        """Without drafting."""
        if request.get("seed") is not None:
            mx.random.seed(request["seed"])
        timeline = Timeline()
        tokens = generate_step(
            mx.array(request["prompt"]),
            self._model,
            max_tokens=request["max_tokens"],
            sampler=make_sampler(temp=request["temperature"]),
        )
        for token, _ in tokens:
            timeline.add([int(token)])
            if token in request["stop"]:
                break
        tokens.close()
        facts = timeline.facts()
        return facts | {"rounds": facts["tokens"], "drafted": 0, "accepted": 0, "round_tokens": facts["tokens"]}


if __name__ == "__main__":
    peer = Peer()
    serve({"load": peer.load, "generate": peer.generate})
