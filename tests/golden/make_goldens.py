"""Make the golden fixtures: five tiny random Gemma 4 pairs and what transformers computes with them.

Every layout becomes `<layout>/target` and `<layout>/assistant` in the published Hugging Face format, and
`<layout>/golden.safetensors` with the reference's tensors. Checkpoints are written first and then loaded by
`from_pretrained`, so the goldens belong to the files on disk. 12b-unified uses transformers' own
`gemma4_unified` classes. The script knows nothing of MLX and nothing of Slipstream.

Run with torch 2.13.0 (CPU) and transformers 5.12.1: `python -m tests.golden.make_goldens`. Checkpoints come out
the same to the byte and tokens the same; the other goldens differ between runs by float32 rounding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.models.gemma4.modeling_gemma4 import Gemma4ForConditionalGeneration
from transformers.models.gemma4_assistant.modeling_gemma4_assistant import Gemma4AssistantForCausalLM
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedForConditionalGeneration
from transformers.models.gemma4_unified_assistant.modeling_gemma4_unified_assistant import (
    Gemma4UnifiedAssistantForCausalLM,
)

from tests.golden.layouts import (
    BOS,
    FULL,
    GLOBAL_HEAD_DIM,
    HEAD_DIM,
    HIDDEN_SIZE,
    LAYOUTS,
    SLIDING,
    STOP_IDS,
    TURN_END,
    TURN_START,
    VOCAB_SIZE,
    Layout,
    assistant_config,
    generation_config,
    target_config,
)

Tensors = dict[str, torch.Tensor]
KVStates = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # by layer type, (1, kv_heads, tokens, head_dim)

PROMPT_COUNT = 70  # passes every window by more than its own length
LATE_PROMPT_COUNT = 50  # the late state is this many prompt tokens and then LATE_STEP_COUNT greedy ones
LATE_STEP_COUNT = 20
GREEDY_COUNT = 40
DRAFT_COUNT = 4
MARGIN_MIN = 0.03  # between the best and second logit of any golden argmax: far above rounding differences

NORM_SPREAD = 0.1
QK_NORM_MEAN = 0.7  # soft attention in the target: a sharp random one amplifies rounding a hundredfold
DRAFTER_Q_NORM_MEAN = 1.5  # sharp attention in the assistant: drafts must notice a wrong position or window
FINAL_NORM_MEAN = 3.0  # sharpens logits, which a random tied table leaves nearly flat
EMBED_STD = 0.2
LAYER_SCALAR_RANGE = (0.75, 1.05)


# --- weights ------------------------------------------------------------------------------------------------


def norm_mean(name: str) -> float:
    """Where the weights of a norm or a scale are centred."""
    if name.endswith("model.norm.weight"):
        return FINAL_NORM_MEAN
    if "q_norm" in name or "k_norm" in name:
        return QK_NORM_MEAN if "language_model" in name else DRAFTER_Q_NORM_MEAN
    return 1.0


def random_tensor(name: str, shape: torch.Size, rng: torch.Generator) -> torch.Tensor:
    """A weight of the scale its role asks for, so that no layer fades and logits are not flat."""
    if name.endswith("token_ordering"):
        return torch.randperm(shape[0], generator=rng)
    noise = torch.randn(shape, generator=rng)
    if name.endswith("layer_scalar"):
        low, high = LAYER_SCALAR_RANGE
        return low + (high - low) * torch.sigmoid(noise)
    if "norm" in name or name.endswith(("router.scale", "per_expert_scale")):
        return norm_mean(name) + NORM_SPREAD * noise
    if "embed_tokens" in name:
        return EMBED_STD * noise
    return noise / shape[-1] ** 0.5


def unused_kv_weights(layout: Layout, rng: torch.Generator) -> Tensors:
    """K/V weights of the KV-shared layers: nobody reads them, but published checkpoints hold them."""
    weights: Tensors = {}
    layer_count = len(layout.layer_pattern)
    for index in range(layer_count - layout.kv_shared_layers, layer_count):
        head_dim = HEAD_DIM if layout.layer_pattern[index] == "s" else GLOBAL_HEAD_DIM
        projection = torch.Size((layout.kv_heads * head_dim, HIDDEN_SIZE))
        shapes = {"k_proj": projection, "v_proj": projection, "k_norm": torch.Size((head_dim,))}
        for name, shape in shapes.items():
            full_name = f"model.language_model.layers.{index}.self_attn.{name}.weight"
            weights[full_name] = random_tensor(full_name, shape, rng)
    return weights


def random_weights(model: PreTrainedModel, rng: torch.Generator) -> Tensors:
    """Seeded values for every stored tensor of a model; the tied head has none of its own."""
    shapes = {name: value.shape for name, value in model.state_dict().items() if name != "lm_head.weight"}
    return {name: random_tensor(name, shapes[name], rng) for name in sorted(shapes)}


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    save_file({name: tensors[name].contiguous() for name in sorted(tensors)}, path, metadata=metadata)


def write_checkpoint(folder: Path, config: dict[str, Any], weights: Tensors) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    write_tensors(folder / "model.safetensors", weights, {"format": "pt"})


def target_class(layout: Layout) -> type[PreTrainedModel]:
    return Gemma4UnifiedForConditionalGeneration if layout.unified else Gemma4ForConditionalGeneration


def assistant_class(layout: Layout) -> type[PreTrainedModel]:
    return Gemma4UnifiedAssistantForCausalLM if layout.unified else Gemma4AssistantForCausalLM


def skeleton(model_class: type[PreTrainedModel], config: dict[str, Any]) -> PreTrainedModel:
    assert model_class.config_class is not None
    return model_class(model_class.config_class(**config))


def write_pair(layout: Layout, folder: Path) -> None:
    """Write both checkpoints of a layout."""
    rng = torch.Generator().manual_seed(layout.seed)
    config = target_config(layout)
    weights = random_weights(skeleton(target_class(layout), config), rng)
    write_checkpoint(folder / "target", config, weights | unused_kv_weights(layout, rng))
    write_json(folder / "target" / "generation_config.json", generation_config())
    config = assistant_config(layout)
    weights = random_weights(skeleton(assistant_class(layout), config), rng)
    write_checkpoint(folder / "assistant", config, weights)


# --- the reference ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """What the target knows after a forward: enough to start a round of drafts."""

    logits: torch.Tensor  # (rows, vocab)
    hidden: torch.Tensor  # (rows, hidden), after the final norm
    shared_kv: KVStates

    @property
    def bonus(self) -> int:
        return int(self.logits[-1].argmax())


@dataclass(frozen=True, slots=True)
class Drafts:
    """One round of the assistant, a row per step."""

    tokens: torch.Tensor  # (drafts,)
    logits: torch.Tensor  # (drafts, vocab)
    hidden: torch.Tensor  # (drafts, hidden of the target), after post_projection


@dataclass(frozen=True, slots=True)
class Pair:
    target: PreTrainedModel
    assistant: PreTrainedModel


def load_pair(layout: Layout, folder: Path) -> Pair:
    return Pair(
        target_class(layout).from_pretrained(folder / "target", dtype=torch.float32).eval(),
        assistant_class(layout).from_pretrained(folder / "assistant", dtype=torch.float32).eval(),
    )


def make_prompt(layout: Layout) -> list[int]:
    """Random ids behind a beginning of sequence, closed like a user turn."""
    rng = torch.Generator().manual_seed(1000 + layout.seed)
    body = torch.randint(TURN_END + 1, VOCAB_SIZE, (PROMPT_COUNT - 4,), generator=rng).tolist()
    return [BOS, TURN_START, *body, TURN_END, TURN_START]


def prefill(target: PreTrainedModel, tokens: list[int]) -> State:
    output = target(
        input_ids=torch.tensor([tokens]),
        use_cache=False,
        output_hidden_states=True,
        return_shared_kv_states=True,
    )
    return State(output.logits[0], output.hidden_states[-1][0], dict(output.shared_kv_states))


def generate_greedily(target: PreTrainedModel, tokens: list[int], count: int) -> list[int]:
    """Plain `generate` that no stop token ends."""
    target.generation_config.eos_token_id = None
    inputs = torch.tensor([tokens])
    output = target.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        do_sample=False,
        max_new_tokens=count,
        top_k=None,
        top_p=None,
    )
    return [int(token) for token in output[0, len(tokens) :]]


def draft(pair: Pair, state: State, position: int) -> Drafts:
    """A round as `SinglePositionMultiTokenCandidateGenerator` runs it, from the last row of `state`.

    Its own first round after a prefill takes row 0 of the hidden states instead (index `n_last_matches` of a
    whole prompt); every later round takes the last verified row, and so do the goldens.
    """
    embed = pair.target.get_input_embeddings()  # scales by sqrt(hidden)
    token, hidden = torch.tensor([[state.bonus]]), state.hidden[None, -1:]
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    for _ in range(DRAFT_COUNT):
        output = pair.assistant(
            inputs_embeds=torch.cat([embed(token), hidden], dim=-1),
            attention_mask=torch.ones(1, state.shared_kv[FULL][0].shape[2] + 1, dtype=torch.long),
            position_ids=torch.tensor([[position]]),
            shared_kv_states=state.shared_kv,
            use_cache=False,
        )
        token, hidden = output.logits.argmax(dim=-1), output.last_hidden_state
        steps.append((output.logits[0, 0], hidden[0, 0]))
    logits, projected = (torch.stack(column) for column in zip(*steps, strict=True))
    return Drafts(logits.argmax(dim=-1), logits, projected)


def cut_to_window(state: State, window: int) -> State:
    """The same state in a cache that keeps no more than the window on sliding layers."""
    keys, values = state.shared_kv[SLIDING]
    recent = keys[:, :, -window:], values[:, :, -window:]
    return State(state.logits, state.hidden, {**state.shared_kv, SLIDING: recent})


# --- goldens ------------------------------------------------------------------------------------------------


def check_margins(argmaxed: list[torch.Tensor]) -> None:
    """Refuse goldens whose argmax could flip by rounding."""
    best, second = torch.cat(argmaxed).topk(2, dim=-1).values.unbind(-1)
    smallest = float((best - second).min())
    assert smallest > MARGIN_MIN, f"an argmax leads by {smallest:.4f} only: change the seed"


def check_variety(goldens: Tensors) -> None:
    """Refuse goldens a wrong engine could meet: text that repeats or stops, variants that draft the same."""
    greedy = set(goldens["greedy_tokens"].tolist())
    assert len(greedy) > GREEDY_COUNT // 3, "greedy text repeats: change the seed"
    assert not greedy & set(STOP_IDS), "greedy text stops: change the seed"
    plain, late = goldens["drafted_tokens"], goldens["late_drafted_tokens"]
    assert min(len(plain.unique()), len(late.unique())) > 1, "drafts repeat: change the seed"
    variants = (
        (plain, goldens["drafted_tokens_prev"]),
        (late, goldens["late_drafted_tokens_prev"]),
        (late, goldens["late_drafted_tokens_window"]),
    )
    assert not any(torch.equal(*variant) for variant in variants), "a variant drafts the same: change the seed"


def draft_goldens(pair: Pair, state: State, late: State, window: int) -> Tensors:
    """The rounds of both states; logits only for those at the reference's own position and window."""
    rounds = {
        "drafted_{}": draft(pair, state, PROMPT_COUNT),
        "drafted_{}_prev": draft(pair, state, PROMPT_COUNT - 1),
        "late_drafted_{}": draft(pair, late, PROMPT_COUNT),
        "late_drafted_{}_prev": draft(pair, late, PROMPT_COUNT - 1),
        "late_drafted_{}_window": draft(pair, cut_to_window(late, window), PROMPT_COUNT),
    }
    check_margins([drafts.logits for drafts in rounds.values()])
    goldens = {name.format("tokens"): drafts.tokens for name, drafts in rounds.items()}
    goldens |= {name.format("hidden"): drafts.hidden for name, drafts in rounds.items()}
    goldens |= {name.format("logits"): rounds[name].logits for name in ("drafted_{}", "late_drafted_{}")}
    return goldens


def make_goldens(layout: Layout, pair: Pair) -> Tensors:
    """All tensors of one layout; README.md says what each name holds."""
    prompt = make_prompt(layout)
    state = prefill(pair.target, prompt)
    greedy = generate_greedily(pair.target, prompt, GREEDY_COUNT)
    late_prompt = prompt[:LATE_PROMPT_COUNT]
    late_tokens = late_prompt + generate_greedily(pair.target, late_prompt, LATE_STEP_COUNT)
    late = prefill(pair.target, late_tokens)
    assert greedy[0] == state.bonus
    assert len(late_tokens) == PROMPT_COUNT
    greedy_logits = prefill(pair.target, prompt + greedy).logits[PROMPT_COUNT - 1 : -1]
    check_margins([greedy_logits, late.logits[LATE_PROMPT_COUNT - 1 :]])
    goldens = {
        "prompt_tokens": torch.tensor(prompt),
        "prompt_logits": state.logits,
        "prompt_hidden": state.hidden,
        "greedy_tokens": torch.tensor(greedy),
        "late_tokens": torch.tensor(late_tokens),
        "late_bonus": torch.tensor([late.bonus]),
        "late_hidden": late.hidden[-1],
    }
    goldens |= draft_goldens(pair, state, late, layout.window)
    check_variety(goldens)
    return goldens


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    here = Path(__file__).resolve().parent
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    for layout in LAYOUTS:
        folder = here / layout.name
        write_pair(layout, folder)
        with torch.no_grad():
            goldens = make_goldens(layout, load_pair(layout, folder))
        write_tensors(folder / "golden.safetensors", goldens, versions)
        print(f"{layout.name}: {sum(file.stat().st_size for file in folder.rglob('*.*')) // 1024} KB")


if __name__ == "__main__":
    main()
