"""mlx-vlm's MTP drafting: its own `generate_step` and `stream_generate` on its own model and drafter.

Nothing of its algorithm is changed. Its multimodal model needs a vision tower to be built, so it gets a tiny
one that is never used; the language weights go in as they are. Two settings favour it over what a person
gets: a block size in the drafter's config as long as the one asked for (without it, no more than 3 tokens are
drafted until two rounds in three accept all of them), and no text to decode.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_vlm.generate import PromptCacheState, generate_step, stream_generate
from mlx_vlm.models.gemma4 import gemma4
from mlx_vlm.models.gemma4.config import ModelConfig, TextConfig, VisionConfig
from mlx_vlm.speculative.drafters import load_drafter

from tests.bench.serve import Reply, Request, Timeline, serve

TINY_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 16,
    "position_embedding_size": 16,
}


class NoText:
    """Stands for tokenizer, detokenizer and processor: prompts and replies are token ids here."""

    last_segment = ""
    all_special_ids: tuple[int, ...] = ()
    thinking_budget_criteria = None

    def __init__(self) -> None:
        self.tokenizer = self.detokenizer = self

    def stopping_criteria(self, token: int) -> bool:
        return False

    def add_token(self, token: int, **settings: Any) -> None:
        pass

    def reset(self) -> None:
        pass

    def finalize(self) -> None:
        pass


class Peer:
    """One pair, loaded once."""

    def load(self, request: Request) -> Reply:
        """Its own classes and its own reading of the weights."""
        folder = Path(request["target"])
        config = json.loads((folder / "config.json").read_text())
        text = TextConfig.from_dict(config["text_config"])
        model = gemma4.Model(ModelConfig(text_config=text, vision_config=VisionConfig(**TINY_VISION)))
        # Two steps: the wrapper's naming, then the language model's leaving out of what shared layers do not use.
        weights = model.sanitize(mx.load(str(folder / "model.safetensors")))
        weights = model.language_model.sanitize(weights)
        missing = {
            name
            for name, _ in tree_flatten(model.parameters())
            if name.startswith("language_model.") and name not in weights
        }
        if missing:
            raise ValueError(f"{len(missing)} weights are missing, such as {min(missing)}")
        model.load_weights(list(weights.items()), strict=False)
        model.eval()
        mx.eval(model.parameters())
        self._model = model
        self._drafter, self._kind = load_drafter(request["drafter"])
        self._draft_block = self._drafter.draft_block
        self._conversation = PromptCacheState()
        return {}

    def generate(self, request: Request) -> Reply:
        """With drafting, or without for a length of 0."""
        drafting = self._drafting(request)
        timeline = Timeline()
        tokens = generate_step(
            mx.array([request["prompt"]]),
            self._model,
            None,
            None,
            max_tokens=request["max_tokens"],
            temperature=request["temperature"],
            **drafting,
        )
        for token, _ in tokens:
            timeline.add([int(token)])
            if token in request["stop"]:
                break
        tokens.close()
        return timeline.facts() | self._rounds(request, timeline)

    def turn(self, request: Request) -> Reply:
        """One turn of a conversation, by the call that keeps a cache from turn to turn."""
        if request["is_first"]:
            self._conversation = PromptCacheState()
        timeline = Timeline()
        cached_tokens = 0
        results = stream_generate(
            self._model,
            NoText(),
            "",
            input_ids=mx.array([request["prompt"]]),
            prompt_cache_state=self._conversation,
            max_tokens=request["max_tokens"],
            temperature=0.0,
            **self._drafting(request),
        )
        for result in results:
            if result.finish_reason is None:
                timeline.add([int(result.token)])
                cached_tokens = result.cached_tokens
        return timeline.facts() | {"cached_tokens": cached_tokens}

    def _drafting(self, request: Request) -> dict[str, Any]:
        seed = request.get("seed")
        settings: dict[str, Any] = {"seed": seed} if request.get("is_positioned") else {}
        if seed is not None:
            mx.random.seed(seed)
        if not request["length"]:
            return settings
        self._drafter.config.block_size = request["length"] + 1
        script = request.get("script")
        self._drafter.draft_block = self._scripted(script) if script else self._draft_block
        return settings | {
            "draft_model": self._drafter,
            "draft_kind": self._kind,
            "draft_block_size": request["length"] + 1,
        }

    def _scripted(self, script: list[int]) -> Any:
        """Draft as ever, at full cost, and put the script's tokens in place of what was drafted."""

        def draft_block(*arguments: Any, **settings: Any) -> mx.array:
            drafted: mx.array = self._draft_block(*arguments, **settings)
            at = 1 + sum(accepted + 1 for accepted in self._drafter.accept_lens)
            return drafted * 0 + mx.array([script[at : at + drafted.shape[1]]], dtype=drafted.dtype)

        return draft_block

    def _rounds(self, request: Request, timeline: Timeline) -> Reply:
        tokens = len(timeline.token_ids) - 1  # the first comes with the prompt
        if not request["length"]:
            return {"rounds": tokens, "drafted": 0, "accepted": 0, "round_tokens": tokens}
        accepted, drafted = sum(self._drafter.accept_lens), sum(self._drafter.draft_lens)
        rounds = len(self._drafter.accept_lens)
        return {"rounds": rounds, "drafted": drafted, "accepted": accepted, "round_tokens": tokens}


if __name__ == "__main__":
    peer = Peer()
    serve({"load": peer.load, "generate": peer.generate, "turn": peer.turn})
