"""Drafting whole blocks: DSpark and DFlash of DeepSpec, and DFlash of z-lab.

| | DSpark, DFlash (DeepSpec) | DFlash (z-lab) |
|---|---|---|
| told by | architectures Gemma4DSparkModel | architectures DFlashDraftModel |
| layers | Gemma 4's | Qwen3's |
| embedding and head | its own | the target's |
| drafts come from | slot 0, the last token's, on | slot 1 on |
| each draft | corrected by the one before it (Markov head) | drawn alone |

Every tap is the output of the layer that it names. `speculators_block.py` reads another packaging of both.

Confidence heads are left in the file. To end a block by them, the host would wait for the block before the
target's pass, a second time in each round; the length comes from what the rounds before it brought instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from mlx_engine.files.config_bounds import FULL, SLIDING, check_drafter_layers
from mlx_engine.network import checkpoint
from mlx_engine.network.block_network import BlockContext, BlockNetwork, Gemma4BlockLayer, Qwen3BlockLayer
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.mlx_lm_gemma4 import gemma4_text
from mlx_engine.network.tapped_rows import EMBEDDING
from mlx_engine.network.target import Target
from mlx_engine.protocol.errors import ModelFolderError, PairMismatchError
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.draft_vocabulary import DraftVocabulary
from mlx_engine.speculation.drafter import DraftedTarget, DrafterSource, Frontier, adapt
from mlx_engine.speculation.sampling import Distribution, RandomStream, Sampler, history_after
from mlx_engine.speculation.speculators_config import MOST_VOCABULARY, compare, kind_of, number, rope, shown

DSPARK, DFLASH = "Gemma4DSparkModel", "DFlashDraftModel"
MOST_BLOCK_TOKENS = 64
SAME_VOCABULARY = DraftVocabulary(None, 0)


@dataclass(frozen=True, slots=True)
class BlockFacts:
    """What a config.json says about a block drafter."""

    taps: tuple[int, ...]
    block_size: int
    mask_token: int
    first_slot: int
    """Of the block: where the first draft comes from."""

    @property
    def drafts(self) -> int:
        """The most tokens of a block."""
        return min(self.block_size - self.first_slot, MAX_DRAFT_LENGTH)


class BlockModel(Protocol):
    """What differs between the packagings."""

    network: BlockNetwork

    def embed(self, tokens: mx.array) -> mx.array:
        """Rows (1, L, hidden) for tokens (1, L)."""
        ...

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits (L, vocab) for hidden states (1, L, hidden), by draft ids."""
        ...

    def corrected(self, logits: mx.array, previous: mx.array) -> mx.array:
        """Logits (1, vocab) once the token before, (1,), is known: its id is the target's."""
        ...

    is_sequential: bool
    """Drafts depend on the drafts before them."""


class BlockDrafter:
    """A `Drafter` over a block network and the target whose layers it taps."""

    def __init__(
        self,
        name: str,
        model: BlockModel,
        facts: BlockFacts,
        tap_index: int,
        vocabulary: DraftVocabulary = SAME_VOCABULARY,
    ) -> None:
        """tap_index: of its rows in the target's caches."""
        self.name = name
        self._model = model
        self._facts = facts
        self._vocabulary = vocabulary
        self._tap_index = tap_index

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        """Nothing to read: the target's passes left the rows that it needs."""
        return iter(())

    def offer(self, committed: Sequence[int], limit: int) -> Offer:
        """See Drafter."""
        return Offer(min(limit, self._facts.drafts))

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter. The block always has its full size, since its slots see each other."""
        facts = self._facts
        tapped = cache.tapped[self._tap_index]
        context = tapped.context
        if not isinstance(context, BlockContext):
            context = tapped.context = BlockContext(self._model.network)
        context.follow(tapped)
        masks = mx.full((facts.block_size - 1,), facts.mask_token, dtype=mx.int32)
        rows = self._model.embed(mx.concatenate([frontier.token, masks])[None])
        hidden = self._model.network(rows, context)
        logits = self._model.logits(hidden[:, facts.first_slot : facts.first_slot + length])
        position = len(committed)
        if not self._model.is_sequential:
            logits = self._vocabulary.spread(logits)
            seen = None if frontier.seen is None else mx.broadcast_to(frontier.seen, logits.shape)
            return sampler.draw(logits, position, RandomStream.DRAFT, seen)
        return self._draw_in_turn(logits, frontier, position, sampler)

    def _draw_in_turn(self, logits: mx.array, frontier: Frontier, position: int, sampler: Sampler) -> Distribution:
        token, seen = frontier.token, frontier.seen
        drafts: list[Distribution] = []
        for index in range(len(logits)):
            corrected = self._vocabulary.spread(self._model.corrected(logits[index : index + 1], token))
            drafts.append(sampler.draw(corrected, position + index, RandomStream.DRAFT, seen))
            token = drafts[-1].tokens
            seen = history_after(seen, token)
        probs = [draft.probs for draft in drafts if draft.probs is not None]
        tokens = mx.concatenate([draft.tokens for draft in drafts])
        return Distribution(tokens, mx.concatenate(probs) if probs else None)

    def rollback(self, rejected: int) -> None:
        """Nothing to forget: its contexts hold only what the target has committed."""


class DSparkModel(nn.Module):
    """DeepSpec's packaging: Gemma layers, its own embedding and head, and a Markov head unless its rank is 0."""

    def __init__(self, config: dict[str, Any], facts: BlockFacts, target_hidden_size: int) -> None:
        super().__init__()
        args = gemma4_text.ModelArgs.from_dict(config)
        layers = [Gemma4BlockLayer(args, index) for index in range(args.num_hidden_layers)]
        hidden, rank = args.hidden_size, config.get("markov_rank") or 0
        self.network = BlockNetwork(layers, len(facts.taps) * target_hidden_size, hidden, args.rms_norm_eps)
        self.embed_tokens = nn.Embedding(args.vocab_size, hidden)
        self.lm_head = nn.Linear(hidden, args.vocab_size, bias=False)
        self.is_sequential = rank > 0
        if rank:
            self.markov_w1 = nn.Embedding(args.vocab_size, rank)
            self.markov_w2 = nn.Linear(rank, args.vocab_size, bias=False)
        self._scale = hidden**0.5
        self._softcap = args.final_logit_softcapping

    def embed(self, tokens: mx.array) -> mx.array:
        """See BlockModel. Mask tokens are scaled as well."""
        rows: mx.array = self.embed_tokens(tokens) * self._scale
        return rows

    def logits(self, hidden: mx.array) -> mx.array:
        """See BlockModel."""
        logits: mx.array = self.lm_head(hidden)[0]
        return gemma4_text.logit_softcap(self._softcap, logits) if self._softcap else logits

    def corrected(self, logits: mx.array, previous: mx.array) -> mx.array:
        """See BlockModel."""
        return logits + self.markov_w2(self.markov_w1(previous))


class DFlashModel(nn.Module):
    """z-lab's packaging: Qwen3 layers between the target's embedding and head."""

    is_sequential = False

    def __init__(self, config: dict[str, Any], facts: BlockFacts, target: Target) -> None:
        super().__init__()
        layers = [Qwen3BlockLayer(config, index) for index in range(config["num_hidden_layers"])]
        context_size = len(facts.taps) * target.facts.hidden_size
        self.network = BlockNetwork(layers, context_size, config["hidden_size"], config["rms_norm_eps"])
        self._target = (target,)  # in a tuple, so that its weights do not become part of this module

    def embed(self, tokens: mx.array) -> mx.array:
        """See BlockModel."""
        return self._target[0].embed(tokens)

    def logits(self, hidden: mx.array) -> mx.array:
        """See BlockModel. The target's own softcap is the one that its drafter was trained with."""
        return self._target[0].logits(hidden)

    def corrected(self, logits: mx.array, previous: mx.array) -> mx.array:
        """See BlockModel."""
        return logits


def reads(source: DrafterSource) -> bool:
    """The folder contains one of these packagings."""
    return kind_of(source.config) is None and _architecture(source.config) in (DSPARK, DFLASH)


def load(source: DrafterSource, target: DraftedTarget, on_read: checkpoint.OnRead) -> BlockDrafter:
    """See LoadDrafter."""
    folder, config, network = source.folder, source.config, target.network
    facts = read_facts(config, folder / "config.json")
    _check_pair(config, facts, source, target)
    try:
        is_dspark = _architecture(config) == DSPARK
        model: DSparkModel | DFlashModel
        if is_dspark:
            model = DSparkModel(config, facts, network.facts.hidden_size)
        else:
            _check_dflash(config, folder / "config.json")
            rotation = rope(config, folder / "config.json")
            model = DFlashModel({**config, "rope_parameters": rotation}, facts, network)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise ModelFolderError(
            f"{folder / 'config.json'} does not describe a block drafter ({error!r})."
        ) from None
    weights = {_own_name(name): array for name, array in checkpoint.load_weights(folder).items()}
    weights = {name: array for name, array in weights.items() if not name.startswith("confidence_head.")}
    checkpoint.fill_module(model, weights, config, folder, on_read)
    weights.clear()
    adapt(model, source, network)
    name = "dspark" if is_dspark and model.is_sequential else "dflash"
    return BlockDrafter(name, model, facts, network.tap(facts.taps))


def read_facts(config: dict[str, Any], source: Path) -> BlockFacts:
    """What the config says, in the place where its packaging says it. Raises ModelFolderError."""
    check_drafter_layers(config, source)
    nested = config.get("dflash_config") or {}
    if not isinstance(nested, dict):
        raise ModelFolderError(f"{source}: dflash_config is {shown(nested)}; it must map names to values.")
    values = _numbers_of(config)
    is_dspark = _architecture(config) == DSPARK
    taps = values.get("target_layer_ids")
    if not isinstance(taps, list) or not taps or not all(type(tap) is int for tap in taps):
        raise ModelFolderError(f"{source}: target_layer_ids is {shown(taps)}; it must be a list of layers.")
    vocab_size = number(values, "vocab_size", (1, MOST_VOCABULARY), source)
    return BlockFacts(
        taps=tuple(taps),
        block_size=number(values, "block_size", (1 if is_dspark else 2, MOST_BLOCK_TOKENS), source),
        mask_token=number(values, "mask_token_id", (0, vocab_size - 1), source),
        first_slot=0 if is_dspark else 1,
    )


def _check_dflash(config: dict[str, Any], source: Path) -> None:
    """Raises ModelFolderError for ways to draft that z-lab's packaging can name and its Gemma 4 drafters lack."""
    values = _numbers_of(config)
    scale, kinds = config["hidden_size"] ** 0.5, config.get("layer_types") or [FULL]
    scaled, multiplied = values.get("input_embedding_scale", 1), values.get("output_multiplier", 1)
    is_causal = values.get("is_causal")
    known = {
        "input_embedding_scale": (_is_near(scaled, 1) or _is_near(scaled, scale), f"1 or {scale:.4g}"),
        "output_multiplier": (_is_near(multiplied, 1), "1"),
        "is_causal": (
            is_causal is None or all(is_causal is (kind == SLIDING) for kind in kinds),
            "null, or true where all layers slide and false where none does",
        ),
    }
    for name, (is_known, expected) in known.items():
        if not is_known:
            raise ModelFolderError(
                f"{source}: {name} is {shown(values[name])}; a DFlash drafter is run with {expected} alone. "
                "Use another drafter of this variant."
            )


def _numbers_of(config: dict[str, Any]) -> dict[str, Any]:
    """Newer exports of DFlash nest the numbers, older ones do not."""
    return {**config, **(config.get("dflash_config") or {})}


def _is_near(value: object, known: float) -> bool:
    return isinstance(value, int | float) and isclose(value, known, rel_tol=1e-3)


def _check_pair(config: dict[str, Any], facts: BlockFacts, source: DrafterSource, target: DraftedTarget) -> None:
    """Raises PairMismatchError if the drafter was made for another target."""
    network = target.network
    layers = network.layer_count
    comparisons: list[tuple[str, object, object]] = [
        ("layers", config.get("num_target_layers") or layers, layers),
        ("tokens in its vocabulary", config.get("vocab_size"), network.facts.vocab_size),
    ]
    if _architecture(config) == DFLASH:
        comparisons.append(("numbers per hidden state", config.get("hidden_size"), network.facts.hidden_size))
    compare(comparisons, (source.name, str(target.folder)))
    if not all(EMBEDDING <= tap < network.layer_count for tap in facts.taps):
        raise PairMismatchError(
            f"The drafter {source.name} reads the layers {list(facts.taps)}; {target.folder} has "
            f"{network.layer_count}. Use the drafter of the same variant, or --drafter none."
        )


def _own_name(name: str) -> str:
    if name.startswith("markov_head."):
        return name.removeprefix("markov_head.")
    is_body = name.split(".")[0] in ("fc", "hidden_norm", "layers", "norm")
    return f"network.{name}" if is_body else name


def _architecture(config: dict[str, Any]) -> str:
    architectures = config.get("architectures")
    return str(architectures[0]) if isinstance(architectures, list) and architectures else ""
