"""Predicts whether a pair fits a machine's memory, as a sum that a person can check.

Plain arithmetic on facts that others read. The cache's rows follow `mlx_engine/network/kv_cache.py`, and a test
compares the prediction with MLX's own figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mlx_engine.files import config_file
from mlx_engine.files.safetensors_header import ITEM_BITS, Tensor
from mlx_engine.files.stored_dtypes import check_stored
from mlx_engine.files.tensor_names import ORDERING, is_final_norm, is_table
from mlx_engine.files.weight_files import read_tensors
from mlx_engine.protocol.prefill_chunk import attention_row_bytes, chunk_range
from models.catalog import Catalog, CatalogEntry, Source
from models.config import Config, LayerFacts, read_config
from models.drafter_config import DRAFTER_WINDOW

GROWTH_ROWS = 256
SLIDING_GROWTH_ROWS = 64
RESERVE_ROWS = 33
"""Rows that a sliding buffer keeps beyond its window: the rollback reserve, plus one."""
SNAPSHOT_RESERVE_ROWS = 9
"""Rows that a snapshot has beyond the window: its reserve, plus one."""
CHUNK_TOKENS = 256
"""Tokens in one prefill step, where nothing says otherwise."""
SNAPSHOTS_KEPT = 2
"""The prompt cache keeps at least this many snapshots of a chat, whatever their size."""
MOST_SNAPSHOTS = 8
MORE_SNAPSHOTS_BYTES = 512 << 20
"""More snapshots are kept while their total stays below this."""
SHORTEST_SNAPSHOT_TOKENS = 8
"""The least distance between two snapshots."""
PROCESS_BYTES = 400 << 20
"""The engine's process without a model: Python, MLX, the tokenizer."""
BUFFER_CACHE_BYTES = 1 << 30
"""The most freed memory that MLX keeps for reuse."""
BUFFERS_IN_FLIGHT = 10
"""Metal command buffers that MLX has under way at most (MAX_ACTIVE_TASKS in its scheduler.h). Each keeps what its
operations work on until it is done, and with the scores of a long context is full after about one layer."""
ROWS_OF_A_ROUND = 17
USUAL_CONTEXT_TOKENS = 8192
"""A long chat; the verdict is for this length unless another is given."""
TIGHT_SHARE = 0.9
"""Above this share of the working set, little is left for what was not predicted."""

HALF_PRECISION = ("BF16", "F16")
"""What the engine converts to float32 where there is no GPU; see `mlx_engine/network/precision.py`."""
ENTRY_BITS = {"4-bit": 4, "8-bit": 8, "bf16": None}
"""Bits of the quantized weights of a catalog entry; None: not quantized."""

Verdict = Literal["fits", "tight", "does not fit"]


@dataclass(frozen=True, slots=True)
class DrafterMemory:
    """What a drafter of its own K/V keeps of a conversation. An assistant uses the target's and keeps nothing."""

    layers: LayerFacts
    has_snapshots: bool = False
    """A smaller model is kept from turn to turn as the target is; a block drafter and EAGLE-3 are not."""
    tapped_numbers: int = 0
    """Numbers per token that the target keeps, outputs of its layers, until the drafter reads them."""


@dataclass(frozen=True, slots=True)
class PairSize:
    """What the sum is computed from. Sizes are None where the catalog does not know them."""

    target_bytes: int | None
    drafter_bytes: int | None
    """Of all drafters; 0 without one."""
    layers: LayerFacts
    item_bytes: int
    """Size of one number in activations and K/V."""
    drafters: tuple[DrafterMemory, ...] = ()
    """Those with K/V of their own."""
    prefill_chunk: int | None = None
    """Tokens of a prompt in one pass; None: by layout and device."""
    buffers_in_flight: int = 1
    """Layers of a drafted round whose working space exists at the same time."""
    half_precision_bytes: int = 0
    """Bytes of both that are stored in half precision; converted to float32, they take twice as much."""

    @property
    def chunk_tokens(self) -> int:
        """Tokens of a prompt that are read at once, at the most."""
        return self.prefill_chunk or CHUNK_TOKENS

    def as_computed(self, machine: Machine, is_float32: bool) -> PairSize:
        """The sizes while the pair runs on a machine. is_float32: half precision is converted."""
        pair = self
        if is_float32 and pair.target_bytes is not None:
            pair = replace(self, target_bytes=pair.target_bytes + self.half_precision_bytes, item_bytes=4)
        weights = None if pair.target_bytes is None else pair.target_bytes + (pair.drafter_bytes or 0)
        chunks = chunk_range(
            pair.prefill_chunk,
            is_moe=pair.layers.is_moe,
            has_gpu=machine.has_gpu,
            row_bytes=attention_row_bytes(pair.layers.heads, pair.item_bytes),
            room_bytes=None if weights is None else machine.working_set_bytes - weights,
        )
        in_flight = BUFFERS_IN_FLIGHT if machine.has_gpu and pair.drafter_bytes else 1
        return replace(pair, prefill_chunk=chunks.most_tokens, buffers_in_flight=in_flight)


@dataclass(frozen=True, slots=True)
class Machine:
    """A chip and its memory."""

    chip: str
    memory_bytes: int
    working_set_bytes: int
    """The most memory that the device recommends to use."""
    is_measured: bool
    """Whether the device reported the working set; otherwise it is estimated from the memory size."""
    free_bytes: int
    """Free now, or freed on demand."""

    @property
    def has_gpu(self) -> bool:
        """Whether MLX computes on a GPU here; else it does on the processor."""
        return "Apple" in self.chip


@dataclass(frozen=True, slots=True)
class Summand:
    """One part of the sum."""

    what: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict, and the sum behind it."""

    verdict: Verdict | None
    """None while the size of the weights is unknown."""
    context_tokens: int
    lines: tuple[Summand, ...]
    needed_bytes: int | None
    machine: Machine
    largest_context_tokens: int | None
    """The longest context that fits the working set; 0 if not even a short chat does."""
    why: str
    """One sentence: the reason for the verdict, and what to do."""


def fit(
    pair: PairSize, machine: Machine, context_tokens: int | None = None, is_float32: bool | None = None
) -> Fit:
    """Compares the sum for a chat of `context_tokens` with the machine.

    is_float32: half precision is converted to float32 while loading; None: only where there is no GPU.
    """
    pair = pair.as_computed(machine, not machine.has_gpu if is_float32 is None else is_float32)
    context = min(context_tokens or USUAL_CONTEXT_TOKENS, pair.layers.max_context)
    growing = _summands_of_context(pair, context)
    summands = (Summand("weights", pair.target_bytes), Summand("drafter", pair.drafter_bytes), *growing)
    if pair.target_bytes is None or pair.drafter_bytes is None:
        why = "The catalog does not record the size of the weights. `slipstream models pull` asks the hub for it."
        return Fit(None, context, summands, None, machine, None, why)
    weights = pair.target_bytes + pair.drafter_bytes
    needed = weights + sum(summand.size_bytes or 0 for summand in growing)
    largest = _largest_context(pair, machine.working_set_bytes - weights)
    verdict, why = _judge(needed, machine, largest)
    return Fit(verdict, context, summands, needed, machine, largest, why)


def _summands_of_context(pair: PairSize, tokens: int) -> tuple[Summand, ...]:
    """The parts that depend on the length of the chat."""
    readers = [pair.layers, *(drafter.layers for drafter in pair.drafters)]
    kv = sum(kv_bytes(layers, tokens, pair.item_bytes, pair.chunk_tokens) for layers in readers)
    kept = [pair.layers, *(drafter.layers for drafter in pair.drafters if drafter.has_snapshots)]
    taps = sum(tapped_bytes(drafter, tokens, pair.item_bytes, pair.chunk_tokens) for drafter in pair.drafters)
    return (
        Summand(f"K/V of {tokens:,} tokens", kv),
        Summand(
            "snapshots of past turns", sum(snapshot_bytes(layers, tokens, pair.item_bytes) for layers in kept)
        ),
        *([Summand("layers read by drafters", taps)] if taps else []),
        Summand("working space", working_bytes(pair, tokens)),
    )


def _judge(needed: int, machine: Machine, largest: int) -> tuple[Verdict, str]:
    if needed > machine.working_set_bytes:
        if largest:
            return "does not fit", f"It fits with a context of at most {largest:,} tokens."
        return "does not fit", "Choose a smaller variant or a lower precision."
    if needed > machine.free_bytes:
        lacking = (needed - machine.free_bytes) / 1e9
        return (
            "tight",
            f"It fits the device, but {lacking:.1f} GB are in use now: close other programs first.",
        )
    if needed > TIGHT_SHARE * machine.working_set_bytes:
        return "tight", "It fits the device with less than a tenth to spare: close other large programs."
    return "fits", "It fits with room to spare."


def _largest_context(pair: PairSize, room_bytes: int) -> int:
    """The longest chat, in steps of the cache's growth, that fits `room_bytes` beside the weights."""

    def is_room(steps: int) -> bool:
        tokens = min(steps * GROWTH_ROWS, pair.layers.max_context)
        return sum(summand.size_bytes or 0 for summand in _summands_of_context(pair, tokens)) <= room_bytes

    low, high = 0, -(-pair.layers.max_context // GROWTH_ROWS)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_room(middle) else (low, middle - 1)
    return min(low * GROWTH_ROWS, pair.layers.max_context)


def kv_bytes(layers: LayerFacts, tokens: int, item_bytes: int, chunk_tokens: int = CHUNK_TOKENS) -> int:
    """Bytes of the cache after `tokens`: full layers grow, sliding layers stop, sharing layers own none.

    K=V layers count twice as well: keys are rotated and values are not, so both are kept.
    """
    full_rows, sliding_rows = _grown(tokens), _sliding_rows(layers.window, tokens, chunk_tokens)
    full = layers.full_layers * layers.full_kv_heads * layers.full_head_dim * full_rows
    sliding = layers.sliding_layers * layers.sliding_kv_heads * layers.sliding_head_dim * sliding_rows
    return 2 * (full + sliding) * item_bytes


def snapshot_bytes(layers: LayerFacts, tokens: int, item_bytes: int) -> int:
    """The most bytes that snapshots of a chat take: copies of the rows that sliding layers forget."""
    rows = min(tokens, layers.window + SNAPSHOT_RESERVE_ROWS)
    one = 2 * layers.sliding_layers * layers.sliding_kv_heads * layers.sliding_head_dim * rows * item_bytes
    count = min(tokens // SHORTEST_SNAPSHOT_TOKENS, MOST_SNAPSHOTS)
    return min(one * count, max(one * SNAPSHOTS_KEPT, MORE_SNAPSHOTS_BYTES))


def tapped_bytes(drafter: DrafterMemory, tokens: int, item_bytes: int, chunk_tokens: int = CHUNK_TOKENS) -> int:
    """The most bytes that wait for a drafter: a window of rows, and the rest of the pass that fills it."""
    return drafter.tapped_numbers * min(tokens, DRAFTER_WINDOW + chunk_tokens) * item_bytes


def _sliding_rows(window: int, tokens: int, chunk_tokens: int) -> int:
    """A full buffer grows to fit its kept rows, the next chunk, and one step of growth."""
    kept, chunk = window + RESERVE_ROWS, min(chunk_tokens, tokens)
    if chunk > SLIDING_GROWTH_ROWS:
        return kept + SLIDING_GROWTH_ROWS  # a chunk that is longer than the growth makes a buffer of the full size
    rows = 0
    while rows < tokens:
        grown = min(rows + chunk, kept) + SLIDING_GROWTH_ROWS
        if grown == rows:
            break
        rows = grown
    return rows


def _grown(rows: int) -> int:
    return -(-rows // GROWTH_ROWS) * GROWTH_ROWS


def working_bytes(pair: PairSize, context_tokens: int) -> int:
    """An upper bound on the memory of one step beside weights and cache, including the process itself."""
    layers, rows = pair.layers, min(pair.chunk_tokens, context_tokens)
    # Full layers have no fused attention at their head size: scores and softmax exist at the same time.
    scores = 2 * layers.heads * rows * context_tokens
    activations = rows * (6 * layers.hidden_size + 3 * layers.intermediate_size)
    heads = 2 * rows * layers.heads * max(layers.full_head_dim, layers.sliding_head_dim)
    step = (scores + activations + heads) * pair.item_bytes + ROWS_OF_A_ROUND * layers.vocab_size * 4
    # The layers of a prefill chunk are as large, but then nothing else is under way.
    round_rows = min(ROWS_OF_A_ROUND, context_tokens)
    step = max(step, pair.buffers_in_flight * 2 * layers.heads * round_rows * context_tokens * pair.item_bytes)
    # A layer's buffer is copied as it grows, so for a moment two exist.
    growing = 2 * layers.full_kv_heads * layers.full_head_dim * _grown(context_tokens) * pair.item_bytes
    return PROCESS_BYTES + step + growing + min(BUFFER_CACHE_BYTES, 2 * step)


def loaded_bytes(tensors: Mapping[str, Tensor], config: Config) -> int:
    """Bytes of the tensors that the engine loads from a checkpoint: no vision, no unused K/V, nothing twice."""
    return config.parts.loaded_bytes(tensors)


def half_precision_bytes(tensors: Mapping[str, Tensor], config: Config) -> int:
    """Bytes of the loaded tensors that are stored in half precision."""
    halves = {name: tensor for name, tensor in tensors.items() if tensor.dtype in HALF_PRECISION}
    return loaded_bytes(halves, config)


def expected_half_precision_bytes(weights_bytes: int, bits: int | None) -> int:
    """The same from the size alone. In a group of 64 quantized weights, scale and bias are 32 bits."""
    return weights_bytes if bits is None else weights_bytes * 32 // (64 * bits + 32)


def size_of_folders(target: Path, *drafters: Path | None, drafter_vocabulary: int | None = None) -> PairSize:
    """The sizes of a target and its drafters, from headers alone. None: no drafter. Raises ModelFolderError.

    drafter_vocabulary: rows of a large assistant's head that are kept a second time, apart from the others.
    """
    config, tensors = read_config(target), read_tensors(target)
    check_stored(tensors, config_file.read_config(target), target)
    norm = next((tensor for name, tensor in tensors.items() if is_final_norm(name)), None)
    drafter_bytes, half_bytes = 0, half_precision_bytes(tensors, config)
    with_kv = []
    for folder in filter(None, drafters):
        own, own_tensors = read_config(folder), read_tensors(folder)
        drafter_bytes += loaded_bytes(own_tensors, own) + _reduced_head_bytes(own_tensors, own, drafter_vocabulary)
        half_bytes += half_precision_bytes(own_tensors, own)
        if own.is_drafter_packaging:
            with_kv.append(DrafterMemory(own.layers, tapped_numbers=own.taps * config.hidden_size))
        elif not own.is_drafter:
            with_kv.append(DrafterMemory(own.layers, has_snapshots=True))
    return PairSize(
        target_bytes=loaded_bytes(tensors, config),
        drafter_bytes=drafter_bytes,
        layers=config.layers,
        item_bytes=ITEM_BITS[norm.dtype] // 8 if norm else 2,
        drafters=tuple(with_kv),
        half_precision_bytes=half_bytes,
    )


def _reduced_head_bytes(tensors: Mapping[str, Tensor], config: Config, rows: int | None) -> int:
    """See `mlx_engine/speculation/reduced_head.py`. The few rows that a conversation adds are not counted."""
    is_large = config.model_type in config_file.ASSISTANT_TYPES and ORDERING not in tensors
    table = [tensor for name, tensor in tensors.items() if is_table(name) and tensor.shape]
    if not (rows and is_large and table) or rows >= table[0].shape[0]:
        return 0
    return sum(tensor.size_bytes * rows // tensor.shape[0] for tensor in table)


def size_of_entry(entry: CatalogEntry, catalog: Catalog, drafter: Source | None = None) -> PairSize:
    """The sizes that the catalog records for an entry. drafter: in place of its own; what it keeps of a
    conversation only its config tells."""
    drafter = drafter or entry.drafter
    half_bytes = 0
    if entry.precision in ENTRY_BITS:
        half_bytes = expected_half_precision_bytes(entry.target.size_bytes or 0, ENTRY_BITS[entry.precision])
        half_bytes += (drafter.size_bytes or 0) if drafter else 0
    return PairSize(
        target_bytes=entry.target.size_bytes,
        drafter_bytes=drafter.size_bytes if drafter else 0,
        layers=catalog.family(entry).layers,
        item_bytes=entry.item_bytes,
        half_precision_bytes=half_bytes,
    )


def suggest(catalog: Catalog, machine: Machine) -> tuple[str, str]:
    """(name, reason): the entry to start with on this machine; the reason is one sentence."""
    if "Apple" not in machine.chip:
        chip = machine.chip or "this chip"
        return "pocket", f"It runs on any machine; Gemma 4 is for Apple silicon and would be very slow on {chip}."
    is_wide = any(kind in machine.chip for kind in ("Max", "Ultra"))
    at_rest = Machine(machine.chip, machine.memory_bytes, machine.working_set_bytes, True, machine.memory_bytes)
    for name in ("31b-4bit", "26b-a4b-4bit", "12b-4bit", "e4b-4bit", "e2b-4bit"):
        if name == "31b-4bit" and not is_wide:
            continue  # reads all 17 GB for every token: too slow without fast memory
        entry = catalog.entries.get(name)
        if entry and fit(size_of_entry(entry, catalog), at_rest).verdict == "fits":
            title = f"{catalog.family(entry).title}, {entry.precision}"
            room = f"{machine.working_set_bytes / 1e9:.0f} GB for models"
            return name, f"{title} is the largest variant that runs well on {machine.chip} with {room}."
    return "pocket", f"No Gemma 4 variant fits {machine.working_set_bytes / 1e9:.1f} GB; the pocket model does."
