"""Drafting with EAGLE-3, of speculators and of DeepSpec.

| | speculators | DeepSpec |
|---|---|---|
| told by | speculators_model_type eagle3 | architectures Gemma4Eagle3Model |
| taps | the states that enter layers | the outputs of five layers |
| layers | Llama's or Qwen3's | Gemma 4's, one |
| head | in draft ids (d2t) | the whole vocabulary, with softcap |
| fed on | the state, or what the final norm makes of it | the state |

The first draft comes from the last row that the target has read, together with the token behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_engine.files.config_bounds import check_drafter_layers
from mlx_engine.network import checkpoint
from mlx_engine.network.eagle_network import EagleContext, EagleLayer, EagleNetwork, Gemma4EagleLayer
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.mlx_lm_gemma4 import gemma4_text
from mlx_engine.network.target import Gemma4Target
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.speculation import speculators_config
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.draft_vocabulary import DraftVocabulary, take_vocabulary
from mlx_engine.speculation.drafter import DraftedTarget, DrafterSource, Frontier, adapt, draft_one_by_one
from mlx_engine.speculation.sampling import Distribution, RandomStream, Sampler
from mlx_engine.speculation.speculators_config import SpeculatorsConfig, check_target, shown

EAGLE3, DEEPSPEC = "eagle3", "Gemma4Eagle3Model"
DEEPSPEC_TAPS = 5
TARGETS_OWN = ("verifier_lm_head.", "verifier_norm.")
"""Copies of the target's tensors, used in training."""
BODY = ("fc", "fc_norm", "input_norm", "layers", "norm")


class EagleModel(nn.Module):
    """The network with embedding and head. An embedding that the file leaves out is the target's."""

    feeds_normed = False
    """The next row reads the state behind the final norm, not before it."""
    scale: float | None = None
    """Of its own embedding."""
    softcap: float | None = None

    def __init__(
        self, network: EagleNetwork, facts: SpeculatorsConfig, owns_embedding: bool, target: Gemma4Target
    ) -> None:
        super().__init__()
        self.network = network
        hidden = facts.layer["hidden_size"]
        if owns_embedding:
            self.embed_tokens = nn.Embedding(facts.vocab_size, hidden)
        self.lm_head = nn.Linear(hidden, facts.draft_vocab_size, bias=False)
        self._target = (target,)  # in a tuple, so that its weights do not become part of this module

    def embed(self, tokens: mx.array) -> mx.array:
        """Rows (1, L, hidden) for tokens (1, L)."""
        if "embed_tokens" not in self:
            return self._target[0].embedding_rows(tokens)
        rows: mx.array = self.embed_tokens(tokens)
        return rows if self.scale is None else rows * self.scale

    def logits(self, normed: mx.array) -> mx.array:
        """Logits (1, draft vocab) for a state (1, 1, hidden) behind the final norm."""
        logits: mx.array = self.lm_head(normed)[0]
        return gemma4_text.logit_softcap(self.softcap, logits) if self.softcap else logits


class EagleDrafter:
    """A `Drafter` over an EAGLE-3 network and the target whose layers it taps."""

    name = "eagle3"

    def __init__(self, model: EagleModel, tap_index: int, vocabulary: DraftVocabulary) -> None:
        """tap_index: of its rows in the target's caches."""
        self._model = model
        self._tap_index = tap_index
        self._vocabulary = vocabulary

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        """Nothing to read yet: it reads the rows that the target's passes left when it drafts."""
        return iter(())

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        """See Drafter."""
        return Offer(limit)

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. Rows of drafts are dropped at once: once accepted, they come back from the target."""
        model, tapped = self._model, cache.tapped[self._tap_index]
        context = tapped.context
        if not isinstance(context, EagleContext):
            context = tapped.context = EagleContext(model.network, model.embed)
        state = context.follow(tapped, committed)

        def step(token: mx.array, seen: mx.array | None, position: int) -> Distribution:
            nonlocal state
            if position > len(committed):
                state = model.network(model.embed(token[None]), state, context.caches)
            normed = model.network.norm(state)
            if model.feeds_normed:
                state = normed
            logits = model.logits(normed)
            if sampler.is_argmax:
                return Distribution(self._vocabulary.tokens(mx.argmax(logits, axis=-1)), None)
            return sampler.draw(self._vocabulary.spread(logits), position, RandomStream.DRAFT, seen)

        draft = draft_one_by_one(step, frontier, len(committed), length)
        context.forget(length - 1)
        return draft

    def rollback(self, rejected: int) -> None:
        """Nothing to forget: its contexts hold only what the target has committed."""


def reads(source: DrafterSource) -> bool:
    """The folder contains one of these packagings."""
    return speculators_config.kind_of(source.config) == EAGLE3 or _is_deepspec(source.config)


def load(source: DrafterSource, target: DraftedTarget, on_read: checkpoint.OnRead) -> EagleDrafter:
    """See LoadDrafter."""
    folder, config, network = source.folder, source.config, target.network
    path = folder / "config.json"
    read = _deepspec(config, source) if _is_deepspec(config) else _speculators(config, network, source)
    sizes = network.layer_count, network.facts.hidden_size, network.facts.vocab_size
    check_target(read, sizes, (source.name, str(target.folder)))
    weights = checkpoint.load_weights(folder)
    vocabulary = take_vocabulary(weights, (read.draft_vocab_size, read.vocab_size), folder)
    weights = {
        f"network.{name}" if name.split(".")[0] in BODY else name: array
        for name, array in weights.items()
        if not name.startswith(TARGETS_OWN)
    }
    owns_embedding = _is_deepspec(config) or "embed_tokens.weight" in weights
    try:
        build = _deepspec_model if _is_deepspec(config) else _speculators_model
        model = build(config, read, owns_embedding, network)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise ModelFolderError(f"{path} does not describe an EAGLE-3 drafter ({error!r}).") from None
    checkpoint.fill_module(model, weights, config, folder, on_read)
    weights.clear()
    adapt(model, source, network)
    return EagleDrafter(model, network.tap(read.taps), vocabulary)


def _speculators(config: dict[str, Any], network: Gemma4Target, source: DrafterSource) -> SpeculatorsConfig:
    key = "eagle_aux_hidden_state_layer_ids"
    return speculators_config.read(config, key, network.layer_count, source.folder / "config.json")


def _speculators_model(
    config: dict[str, Any], read: SpeculatorsConfig, owns_embedding: bool, target: Gemma4Target
) -> EagleModel:
    layer, hidden = read.layer, target.facts.hidden_size
    is_normed = bool(config.get("norm_before_residual", False))
    layers = [EagleLayer(layer, index, is_normed) for index in range(layer["num_hidden_layers"])]
    norms = "each" if config.get("fc_norm") else "all" if config.get("norm_before_fc") else ""
    network = EagleNetwork(layers, (len(read.taps), hidden, hidden), layer["rms_norm_eps"], norms)
    model = EagleModel(network, read, owns_embedding, target)
    model.feeds_normed = bool(config.get("norm_output", False))
    return model


def _deepspec(config: dict[str, Any], source: DrafterSource) -> SpeculatorsConfig:
    path = source.folder / "config.json"
    taps = config.get("target_layer_ids")
    is_list = isinstance(taps, list) and all(type(tap) is int and tap >= 0 for tap in taps)
    if not is_list or len(taps or ()) != DEEPSPEC_TAPS:
        raise ModelFolderError(
            f"{path}: target_layer_ids is {shown(taps)}; it must be a list of {DEEPSPEC_TAPS} layers."
        )
    speculators_config.number(config, "num_hidden_layers", (1, 1), path)
    check_drafter_layers(config, path)
    bounds = 1, speculators_config.MOST_VOCABULARY
    vocab_size = speculators_config.number(config, "vocab_size", bounds, path)
    return SpeculatorsConfig(config, tuple(taps or ()), vocab_size, vocab_size)


def _deepspec_model(
    config: dict[str, Any], read: SpeculatorsConfig, owns_embedding: bool, target: Gemma4Target
) -> EagleModel:
    args = gemma4_text.ModelArgs.from_dict(config)
    hidden = args.hidden_size
    sizes = len(read.taps), target.facts.hidden_size, hidden
    network = EagleNetwork([Gemma4EagleLayer(args, 0)], sizes, args.rms_norm_eps)
    model = EagleModel(network, read, owns_embedding, target)
    model.scale, model.softcap = hidden**0.5, args.final_logit_softcapping
    return model


def _is_deepspec(config: dict[str, Any]) -> bool:
    return config.get("architectures") == [DEEPSPEC]
