"""Drafting whole blocks with DSpark and DFlash in speculators' packaging.

Layers are Qwen3's. What a file leaves out is the target's: the embedding, its rows as they are stored, and the
head without its softcap. DSpark corrects each draft by the one before it (Markov head), as DeepSpec's does.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_engine.network import checkpoint
from mlx_engine.network.block_network import BlockNetwork, SpeculatorsBlockLayer
from mlx_engine.network.target import Gemma4Target
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.speculation import speculators_config
from mlx_engine.speculation.block_drafter import MOST_BLOCK_TOKENS, BlockDrafter, BlockFacts
from mlx_engine.speculation.draft_vocabulary import take_vocabulary
from mlx_engine.speculation.drafter import DraftedTarget, DrafterSource, adapt
from mlx_engine.speculation.speculators_config import SpeculatorsConfig, number, shown

DSPARK, DFLASH = "dspark", "dflash"
TARGETS_OWN = ("verifier_lm_head.", "verifier_norm.")
"""Copies of the target's tensors, used in training."""


class SpeculatorsBlockModel(nn.Module):
    """A `BlockModel`."""

    def __init__(
        self, facts: SpeculatorsConfig, taps: int, markov_rank: int, owned: tuple[bool, bool], target: Gemma4Target
    ) -> None:
        """owned: whether it has an embedding and a head of its own."""
        super().__init__()
        layer = facts.layer
        hidden, owns_embedding, owns_head = layer["hidden_size"], *owned
        layers = [SpeculatorsBlockLayer(layer, index) for index in range(layer["num_hidden_layers"])]
        self.network = BlockNetwork(layers, taps * hidden, hidden, layer["rms_norm_eps"])
        if owns_embedding:
            self.embed_tokens = nn.Embedding(facts.vocab_size, hidden)
        if owns_head:
            self.lm_head = nn.Linear(hidden, facts.draft_vocab_size, bias=False)
        self.is_sequential = markov_rank > 0
        if markov_rank:
            self.markov_w1 = nn.Embedding(facts.vocab_size, markov_rank)
            self.markov_w2 = nn.Linear(markov_rank, facts.draft_vocab_size, bias=False)
        self._target = (target,)  # in a tuple, so that its weights do not become part of this module

    def embed(self, tokens: mx.array) -> mx.array:
        """See BlockModel. Not scaled, whoever's rows they are."""
        rows: mx.array = (
            self.embed_tokens(tokens) if "embed_tokens" in self else self._target[0].embedding_rows(tokens)
        )
        return rows

    def logits(self, hidden: mx.array) -> mx.array:
        """See BlockModel."""
        logits: mx.array = (
            self.lm_head(hidden)[0] if "lm_head" in self else self._target[0].uncapped_logits(hidden)
        )
        return logits

    def corrected(self, logits: mx.array, previous: mx.array) -> mx.array:
        """See BlockModel. The token before has a target's id, the correction is by draft ids."""
        return logits + self.markov_w2(self.markov_w1(previous))


def reads(source: DrafterSource) -> bool:
    """The folder contains one of these drafters."""
    return speculators_config.kind_of(source.config) in (DSPARK, DFLASH)


def load(source: DrafterSource, target: DraftedTarget, on_read: checkpoint.OnRead) -> BlockDrafter:
    """See LoadDrafter."""
    folder, config, network = source.folder, source.config, target.network
    path = folder / "config.json"
    read = speculators_config.read(config, "aux_hidden_state_layer_ids", network.layer_count, path)
    sizes = network.layer_count, network.facts.hidden_size, network.facts.vocab_size
    speculators_config.check_target(read, sizes, (source.name, str(target.folder)))
    facts = block_facts(config, read, source)
    rank = _markov_rank(config, source)
    weights = checkpoint.load_weights(folder)
    vocabulary = take_vocabulary(weights, (read.draft_vocab_size, read.vocab_size), folder)
    weights = {
        _own_name(name): array
        for name, array in weights.items()
        if not name.startswith((*TARGETS_OWN, "confidence_head."))
    }
    owned = (
        "embed_tokens.weight" in weights,
        "lm_head.weight" in weights or read.draft_vocab_size < read.vocab_size,
    )
    layer = {**read.layer, "sliding_window_non_causal": config.get("sliding_window_non_causal")}
    read = SpeculatorsConfig(layer, read.taps, read.vocab_size, read.draft_vocab_size)
    try:
        model = SpeculatorsBlockModel(read, len(facts.taps), rank, owned, network)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise ModelFolderError(f"{path} does not describe a block drafter ({error!r}).") from None
    checkpoint.fill_module(model, weights, config, folder, on_read)
    weights.clear()
    adapt(model, source, network)
    name = "dspark" if model.is_sequential else "dflash"
    return BlockDrafter(name, model, facts, network.tap(facts.taps), vocabulary)


def block_facts(config: dict[str, Any], read: SpeculatorsConfig, source: DrafterSource) -> BlockFacts:
    """Raises ModelFolderError. The number of tokens says where the first one comes from, whatever else does."""
    path = source.folder / "config.json"
    block_size = number(config, "block_size", (1, MOST_BLOCK_TOKENS), path)
    tokens = speculators_config.speculative_tokens(config)
    if tokens is None:
        has_anchor = config.get("sample_from_anchor")
        has_anchor = speculators_config.kind_of(config) == DSPARK if has_anchor is None else has_anchor
        tokens = block_size if has_anchor else block_size - 1
    if type(tokens) is not int or tokens < 1 or tokens not in (block_size, block_size - 1):
        raise ModelFolderError(
            f"{path}: speculative_tokens is {shown(tokens)}; a block of {block_size} has as many or one less. "
            "Pull the drafter again."
        )
    return BlockFacts(
        taps=read.taps,
        block_size=block_size,
        mask_token=number(config, "mask_token_id", (0, read.vocab_size - 1), path),
        first_slot=block_size - tokens,
    )


def _markov_rank(config: dict[str, Any], source: DrafterSource) -> int:
    """0: it has no Markov head. Raises ModelFolderError for a kind that cannot be run."""
    if speculators_config.kind_of(config) == DFLASH:
        return 0
    path = source.folder / "config.json"
    rank = number({"markov_rank": 256} | config, "markov_rank", (0, 1 << 16), path)
    kind = config.get("markov_head_type", "vanilla")
    if rank and kind != "vanilla":
        raise ModelFolderError(
            f"{path}: the Markov head is {str(kind)[:40]!r}; only vanilla ones can be run, not gated or rnn. "
            "Use another drafter."
        )
    return rank


def _own_name(name: str) -> str:
    if name.startswith("markov_head."):
        return name.removeprefix("markov_head.")
    return f"network.{name}" if name.split(".")[0] in ("fc", "hidden_norm", "layers", "norm") else name
