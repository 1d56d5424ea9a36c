"""The sum against what MLX then says, in every layout; and the verdicts as plain tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import msgspec
import pytest

from mlx_engine.engine import CACHED_BUFFER_BYTES
from mlx_engine.files.safetensors_header import Tensor
from mlx_engine.network import prefix
from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.chunk_length import ChunkLength
from mlx_engine.network.kv_cache import (
    GROWTH_ROWS,
    RESUME_RESERVE_ROWS,
    ROLLBACK_RESERVE_ROWS,
    SLIDING_GROWTH_ROWS,
    FullCache,
    SlidingCache,
)
from mlx_engine.network.prefix import PREFILL_CHUNK_TOKENS, PrefixCache
from mlx_engine.network.tapped_rows import TappedRows
from mlx_engine.network.target import Gemma4Target, load_target
from mlx_engine.protocol.conversation_memory import conversation_bytes
from mlx_engine.protocol.prefill_chunk import ChunkRange
from models import memory_fit, pocket
from models.catalog import Catalog, load_catalog
from models.config import read_config
from models.machine import estimated_working_set, gpu_generation, mac_free_bytes, meminfo, read_machine
from models.memory_fit import (
    Machine,
    PairSize,
    fit,
    kv_bytes,
    loaded_bytes,
    size_of_entry,
    size_of_folders,
    snapshot_bytes,
    suggest,
    tapped_bytes,
    working_bytes,
)
from tests.cases import cases
from tests.fakes.folders import write_pair
from tests.mlx_engine.helpers import load_tensors
from tests.paths import GOLDEN

pytestmark = pytest.mark.sampled(4)

LAYOUTS = ["e2b", "e4b", "12b-unified", "26b-a4b", "31b"]
PAIRS = {
    "pocket": (pocket.TARGET_FOLDER, pocket.DRAFTER_FOLDER),
    **{name: (GOLDEN / name / "target", GOLDEN / name / "assistant") for name in LAYOUTS},
}
CONTEXTS = cases([40, 257, 700], [1, 40, 256, 257, 700, 1500])
USUAL_MACS_GB = [4, 8, 16, 24, 32, 48, 64, 96, 128]


@pytest.fixture(autouse=True)
def exact_figures() -> Iterator[None]:
    """A freed buffer that is reused for a smaller array counts whole: measured without that."""
    before = mx.set_cache_limit(0)
    yield
    mx.set_cache_limit(before)


def read(target: Gemma4Target, tokens: int) -> int:
    """Bytes that a conversation of this length adds."""
    before = mx.get_active_memory()
    cache = target.new_cache()
    for done in range(0, tokens, PREFILL_CHUNK_TOKENS):
        rows = min(PREFILL_CHUNK_TOKENS, tokens - done)
        mx.eval(target.forward(mx.zeros((1, rows), dtype=mx.int32), cache), cache.arrays())
    return mx.get_active_memory() - before


def test_the_constants_are_the_engines() -> None:
    assert memory_fit.GROWTH_ROWS == GROWTH_ROWS
    assert memory_fit.SLIDING_GROWTH_ROWS == SLIDING_GROWTH_ROWS
    assert memory_fit.RESERVE_ROWS == ROLLBACK_RESERVE_ROWS + 1
    assert memory_fit.SNAPSHOT_RESERVE_ROWS == RESUME_RESERVE_ROWS + 1
    assert memory_fit.CHUNK_TOKENS == PREFILL_CHUNK_TOKENS
    assert memory_fit.BUFFER_CACHE_BYTES == CACHED_BUFFER_BYTES
    assert memory_fit.SNAPSHOTS_KEPT == prefix.SNAPSHOTS_KEPT
    assert memory_fit.MOST_SNAPSHOTS == prefix.MOST_SNAPSHOTS
    assert memory_fit.MORE_SNAPSHOTS_BYTES == prefix.MORE_SNAPSHOTS_BYTES
    assert memory_fit.SHORTEST_SNAPSHOT_TOKENS == prefix.SHORTEST_SNAPSHOT_TOKENS


@pytest.mark.parametrize("name", [pytest.param("pocket", marks=pytest.mark.slow), *LAYOUTS])
def test_prediction_and_measurement_agree(name: str) -> None:
    folders = PAIRS[name]
    size = size_of_folders(*folders)
    assert size.target_bytes is not None
    assert size.drafter_bytes is not None
    before = mx.get_active_memory()
    target, assistant = load_target(folders[0]), load_assistant(folders[1])
    assert size.target_bytes + size.drafter_bytes == pytest.approx(mx.get_active_memory() - before, rel=0.05)
    del assistant
    for tokens in CONTEXTS:
        assert kv_bytes(size.layers, tokens, size.item_bytes) == pytest.approx(read(target, tokens), rel=0.05)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("more_bytes", [1, 100_000, 1 << 30])
def test_no_conversation_has_larger_snapshots(name: str, more_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (prefix, memory_fit):
        monkeypatch.setattr(module, "MORE_SNAPSHOTS_BYTES", more_bytes)
    size = size_of_folders(*PAIRS[name])
    conversation = PrefixCache(load_target(PAIRS[name][0]))
    for tokens in (6, 40, 300):
        conversation.resume([0] * (tokens + 1))
        list(conversation.prefill(range(prefix.SHORTEST_SNAPSHOT_TOKENS, tokens, prefix.SHORTEST_SNAPSHOT_TOKENS)))
        predicted = snapshot_bytes(size.layers, tokens, size.item_bytes)
        assert conversation.snapshot_bytes <= predicted
    assert more_bytes > 1 or conversation.snapshot_bytes == predicted


@pytest.mark.parametrize("window", [512, 1024])
@pytest.mark.parametrize("tokens", [1, 200, 256, 257, 900, 3000])
@pytest.mark.parametrize("chunk", [PREFILL_CHUNK_TOKENS, 512, 1024])
def test_caches_at_the_familys_own_windows(catalog: Catalog, window: int, tokens: int, chunk: int) -> None:
    layers = msgspec.structs.replace(
        catalog.families["pocket"].layers, full_layers=1, sliding_layers=1, window=window, full_head_dim=16
    )
    full, sliding = FullCache(), SlidingCache(window)
    for done in range(0, tokens, chunk):
        rows = mx.zeros((1, 1, min(chunk, tokens - done), 16))
        for cache in (full, sliding):
            cache.update_and_fetch(rows, rows)
    assert kv_bytes(layers, tokens, 4, chunk) == full.nbytes + sliding.nbytes


@pytest.mark.parametrize("name", ["e2b", "e4b", "12b", "26b-a4b", "31b"])
def test_the_familys_own_layouts(catalog: Catalog, name: str) -> None:
    """Caches of the published geometry, filled by hand: K/V to the byte, and what the snapshots of a chat take."""
    layers = catalog.families[name].layers
    tokens = 2 * PREFILL_CHUNK_TOKENS + layers.window
    full, sliding = FullCache(), SlidingCache(layers.window)
    shapes = (
        (full, layers.full_kv_heads, layers.full_head_dim),
        (sliding, layers.sliding_kv_heads, layers.sliding_head_dim),
    )
    for done in range(0, tokens, PREFILL_CHUNK_TOKENS):
        for cache, heads, head_dim in shapes:
            rows = mx.zeros((1, heads, min(PREFILL_CHUNK_TOKENS, tokens - done), head_dim), dtype=mx.bfloat16)
            cache.update_and_fetch(rows, rows)
    assert kv_bytes(layers, tokens, 2) == layers.full_layers * full.nbytes + layers.sliding_layers * sliding.nbytes
    rows_kept = sliding.snapshot(tokens).rows
    assert rows_kept is not None
    snapshot = layers.sliding_layers * sum(rows.nbytes for rows in rows_kept)
    predicted = snapshot_bytes(layers, 8192, 2)
    assert predicted >= prefix.SNAPSHOTS_KEPT * snapshot
    assert predicted <= max(prefix.MOST_SNAPSHOTS * snapshot, prefix.SNAPSHOTS_KEPT * snapshot)
    assert predicted <= max(prefix.MORE_SNAPSHOTS_BYTES, prefix.SNAPSHOTS_KEPT * snapshot)
    if name in ("e2b", "e4b"):
        assert predicted == prefix.MOST_SNAPSHOTS * snapshot < prefix.MORE_SNAPSHOTS_BYTES / 2


@pytest.mark.parametrize(
    ("name", "is_loaded"),
    [
        ("model.language_model.layers.2.self_attn.k_proj.weight", True),
        ("model.language_model.layers.3.self_attn.k_proj.weight", False),
        ("language_model.model.layers.5.self_attn.v_proj.scales", False),
        ("language_model.model.layers.5.self_attn.q_proj.weight", True),
        ("model.vision_tower.encoder.weight", False),
        ("audio_tower.layers.0.weight", False),
        ("model.embed_vision.embedding_projection.weight", False),
        ("language_model.lm_head.weight", False),
        ("lm_head.weight", False),
        ("model.language_model.layers.0.self_attn.rotary_emb.inv_freq", False),
    ],
)
def test_parts_that_are_not_loaded_are_not_counted(name: str, is_loaded: bool) -> None:
    config = read_config(GOLDEN / "e2b" / "target")
    assert config.parts.first_shared_layer == 3
    assert loaded_bytes({name: Tensor("BF16", (50,), 0, 100)}, config) == (100 if is_loaded else 0)


def test_a_quantized_pair_is_predicted_as_well(tmp_path: Path) -> None:
    from mlx_engine.loading.convert import convert

    target, drafter = write_pair(tmp_path)
    for source, copy in ((target, tmp_path / "t4"), (drafter, tmp_path / "d4")):
        convert(source, copy, bits=4, group_size=32)
    size = size_of_folders(tmp_path / "t4", tmp_path / "d4")
    before = mx.get_active_memory()
    pair = load_target(tmp_path / "t4"), load_assistant(tmp_path / "d4")
    assert size.target_bytes is not None
    assert size.drafter_bytes is not None
    measured = mx.get_active_memory() - before
    assert size.target_bytes + size.drafter_bytes == pytest.approx(measured, rel=0.05)
    assert size.target_bytes < 0.6 * (size_of_folders(target, None).target_bytes or 0)
    del pair


def test_a_pair_in_half_precision_is_predicted_as_it_is_computed(tmp_path: Path) -> None:
    target, drafter = write_pair(tmp_path)
    for folder in (target, drafter):
        tensors = load_tensors(folder / "model.safetensors")
        halves = {name: array.astype(mx.bfloat16) if array.dtype == mx.float32 else array * 1
                  for name, array in tensors.items()}  # fmt: skip
        mx.eval(halves)
        mx.save_safetensors(str(folder / "model.safetensors"), halves)
    stored = size_of_folders(target, drafter)
    for is_float32, item_bytes in ((False, 2), (True, 4)):
        size = stored.as_computed(machine(8), is_float32)
        before = mx.get_active_memory()
        pair = load_target(target, is_float32=is_float32), load_assistant(drafter, is_float32=is_float32)
        measured = mx.get_active_memory() - before
        assert (size.target_bytes or 0) + (size.drafter_bytes or 0) == pytest.approx(measured, rel=0.05)
        assert size.item_bytes == item_bytes
        assert kv_bytes(size.layers, 257, size.item_bytes) == pytest.approx(read(pair[0], 257), rel=0.05)
        del pair


def test_the_verdict_counts_on_float32_where_there_is_no_gpu(catalog: Catalog) -> None:
    size = replace(size_of_entry(catalog.entries["12b-bf16"], catalog), prefill_chunk=256)
    mac, other = fit(size, machine(500)), fit(size, machine(500, chip="Intel(R) Core(TM) i7"))
    assert mac.needed_bytes is not None
    assert other.needed_bytes is not None
    assert other.needed_bytes > 1.9 * mac.needed_bytes
    assert fit(size, machine(500), is_float32=True) == replace(other, machine=machine(500))
    as_stored = fit(size, machine(500, chip="Intel(R) Core(TM) i7"), is_float32=False)
    assert as_stored.needed_bytes == mac.needed_bytes


@pytest.mark.parametrize("name", [pytest.param("pocket", marks=pytest.mark.slow), *LAYOUTS])
def test_one_step_needs_no_more_than_the_working_space(name: str) -> None:
    size = size_of_folders(*PAIRS[name])
    target = load_target(PAIRS[name][0])
    cache = target.new_cache()
    for tokens in cases((40, 1000), (40, 600, 2000)):
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        rows = tokens - cache.frontier
        for done in range(0, rows, PREFILL_CHUNK_TOKENS):
            count = min(PREFILL_CHUNK_TOKENS, rows - done)
            hidden = target.forward(mx.zeros((1, count), dtype=mx.int32), cache)
            mx.eval(target.logits(hidden[:, -17:]), cache.arrays())
        del hidden
        used = mx.get_peak_memory() - max(before, mx.get_active_memory())
        assert 0 < used <= working_bytes(size, tokens) - memory_fit.PROCESS_BYTES


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("chunk", [128, 512, 1024])
def test_the_working_space_follows_the_chunk(name: str, chunk: int) -> None:
    size = replace(size_of_folders(*PAIRS[name]), prefill_chunk=chunk)
    conversation = PrefixCache(load_target(PAIRS[name][0]), ChunkLength(ChunkRange(chunk, chunk)))
    conversation.resume([0] * 2049)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    list(conversation.prefill())
    used = mx.get_peak_memory() - max(before, mx.get_active_memory())
    assert 0 < used <= working_bytes(size, 2048) - memory_fit.PROCESS_BYTES


def test_a_longer_chunk_needs_more_memory(catalog: Catalog) -> None:
    size = size_of_entry(catalog.entries["26b-a4b-4bit"], catalog)
    assert catalog.families["26b-a4b"].layers.is_moe
    needed = [
        fit(replace(size, prefill_chunk=chunk), machine(64)).needed_bytes for chunk in (None, 512, 1024, 2048)
    ]
    assert needed[1] < needed[0] == needed[2] < needed[3]  # type: ignore[operator]


@pytest.mark.parametrize("gigabytes", USUAL_MACS_GB)
def test_what_fits_does_with_other_conversations_in_memory(catalog: Catalog, gigabytes: float) -> None:
    """The most that the engine keeps of them, beside a pass over a usual context."""
    working_set = estimated_working_set(int(gigabytes * 1e9))
    here = Machine("Apple M4", int(gigabytes * 1e9), working_set, True, int(gigabytes * 1e9))
    for entry in catalog.entries.values():
        size = size_of_entry(entry, catalog)
        if size.target_bytes is None or size.drafter_bytes is None or fit(size, here).verdict != "fits":
            continue
        weights = size.target_bytes + size.drafter_bytes
        computed = size.as_computed(here, is_float32=False)
        kept = conversation_bytes(None, working_set - weights)
        context = min(memory_fit.USUAL_CONTEXT_TOKENS, size.layers.max_context)
        running = kv_bytes(size.layers, context, size.item_bytes, computed.chunk_tokens)
        assert weights + max(kept, running) + working_bytes(computed, context) <= working_set


def machine(gigabytes: float, free: float | None = None, chip: str = "Apple M4") -> Machine:
    total = int(gigabytes * 1e9)
    return Machine(chip, total, total, True, int((gigabytes if free is None else free) * 1e9))


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize(
    ("name", "gigabytes", "free", "verdict"),
    [
        ("12b-4bit", 12.0, None, "fits"),
        ("12b-4bit", 12.0, 6.0, "tight"),
        ("12b-4bit", 10.0, None, "tight"),
        ("12b-4bit", 9.0, None, "does not fit"),
        ("12b-4bit", 5.0, None, "does not fit"),
        ("e2b-4bit", 5.7, None, "fits"),
        ("31b-bf16", 48.0, None, "does not fit"),
        ("31b-bf16", 96.0, None, "fits"),
    ],
)
def test_verdicts(catalog: Catalog, name: str, gigabytes: float, free: float | None, verdict: str) -> None:
    found = fit(size_of_entry(catalog.entries[name], catalog), machine(gigabytes, free))
    assert found.verdict == verdict
    assert found.why.endswith(".")
    assert sum(line.size_bytes or 0 for line in found.lines) == found.needed_bytes


def test_the_largest_context_is_the_last_that_fits(catalog: Catalog) -> None:
    size = size_of_entry(catalog.entries["12b-4bit"], catalog)
    found = fit(size, machine(12))
    largest = found.largest_context_tokens
    assert largest is not None
    assert 8192 < largest < 262144
    assert fit(size, machine(12), largest).verdict != "does not fit"
    too_long = fit(size, machine(12), largest + GROWTH_ROWS)
    assert too_long.verdict == "does not fit"
    assert f"at most {largest:,} tokens" in too_long.why
    assert fit(size, machine(5)).largest_context_tokens == 0
    assert fit(size, machine(500)).largest_context_tokens == 262144
    assert fit(size, machine(500), 10**9).context_tokens == 262144


def test_no_drafter_costs_nothing_and_an_unknown_size_gives_no_verdict(catalog: Catalog) -> None:
    entry = catalog.entries["12b-4bit"]
    alone = fit(size_of_entry(msgspec.structs.replace(entry, drafter=None), catalog), machine(64))
    assert alone.needed_bytes == (fit(size_of_entry(entry, catalog), machine(64)).needed_bytes or 0) - 845_719_296
    unknown = fit(PairSize(None, 0, catalog.family(entry).layers, 2), machine(12))
    assert (unknown.verdict, unknown.needed_bytes, unknown.largest_context_tokens) == (None, None, None)


def test_the_way_back_is_part_of_the_sum(catalog: Catalog) -> None:
    found = fit(size_of_entry(catalog.entries["31b-4bit"], catalog), machine(48))
    snapshots = next(line for line in found.lines if "snapshots" in line.what)
    rows = 1024 + RESUME_RESERVE_ROWS + 1
    assert snapshots.size_bytes == 2 * (2 * 50 * 16 * 256 * rows * 2)


def test_a_draft_model_remembers_the_conversation_for_itself(catalog: Catalog) -> None:
    target = PAIRS["31b"][0]
    alone, twice = size_of_folders(target, None), size_of_folders(target, target)
    assert twice.drafter_bytes == twice.target_bytes
    both, one = fit(twice, machine(12), 700), fit(alone, machine(12), 700)
    for line, single in zip(both.lines[2:4], one.lines[2:4]):
        assert line.size_bytes == 2 * (single.size_bytes or 0)
    assert size_of_folders(*PAIRS["31b"]).drafters == ()


@pytest.mark.parametrize("tokens", [100, 4096, 9000])
def test_what_waits_for_a_block_drafter_is_part_of_the_sum(tokens: int) -> None:
    """Outputs of the target's layers, as many as are kept while nothing is drafted; several drafters add up."""
    target, drafters = GOLDEN / "drafters" / "target-12b", GOLDEN / "drafters"
    block, eagle = drafters / "dspark-12b", drafters / "eagle3-llama"
    size = size_of_folders(target, block, eagle)
    for folder, drafter in zip((block, eagle), size.drafters):
        tapped = TappedRows(range({block: 5, eagle: 3}[folder]))
        for done in range(0, tokens, PREFILL_CHUNK_TOKENS):
            rows = mx.zeros((1, min(PREFILL_CHUNK_TOKENS, tokens - done), size.layers.hidden_size))
            tapped.append(dict.fromkeys(tapped.layers, rows), done)
        taken = tapped.take().rows
        assert taken is not None
        predicted = tapped_bytes(drafter, tokens, taken.itemsize)
        assert taken.nbytes <= predicted <= 1.07 * taken.nbytes
    (line,) = [line for line in fit(size, machine(12), tokens).lines if line.what == "layers read by drafters"]
    expected = sum(tapped_bytes(drafter, min(tokens, size.layers.max_context), 4) for drafter in size.drafters)
    assert line.size_bytes in (expected, expected // 2)
    assert size.drafter_bytes == sum(size_of_folders(target, one).drafter_bytes or 0 for one in (block, eagle))


def test_recommended_memory_is_where_the_sum_stays_within_two_thirds(catalog: Catalog) -> None:
    for name, entry in catalog.entries.items():
        size = size_of_entry(entry, catalog)
        if size.target_bytes is None:
            continue
        enough = [
            gigabytes
            for gigabytes in USUAL_MACS_GB
            if fit(size, machine(estimated_working_set(gigabytes << 30) / 1e9)).verdict != "does not fit"
        ]
        assert entry.recommended_memory_gb == min(enough), name


@pytest.mark.parametrize(
    ("chip", "gigabytes", "name"),
    [
        ("Apple M1", 2, "pocket"),
        ("Apple M2", 5.3, "e2b-4bit"),
        ("Apple M2", 7.5, "e4b-4bit"),
        ("Apple M4", 11.4, "12b-4bit"),
        ("Apple M4 Pro", 24, "26b-a4b-4bit"),
        ("Apple M4 Pro", 48, "26b-a4b-4bit"),
        ("Apple M5 Max", 48, "31b-4bit"),
        ("Apple M3 Ultra", 24, "26b-a4b-4bit"),
    ],
)
def test_the_first_choice(catalog: Catalog, chip: str, gigabytes: float, name: str) -> None:
    found, why = suggest(catalog, machine(gigabytes, free=0.1, chip=chip))
    assert found == name
    assert why.endswith(".")


@pytest.mark.parametrize(
    ("chip", "generation"),
    [("Apple M1 Ultra", 13), ("Apple M5 Max", 17), ("Apple M9", None), ("Intel(R) Core(TM) i7", None), ("", None)],
)
def test_gpu_generations(chip: str, generation: int | None) -> None:
    assert gpu_generation(chip) == generation


def test_memory_tables_of_both_systems() -> None:
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               10.\nPages active:                            999.\n"
        "Pages inactive:                           20.\nPages speculative:                         3.\n"
        "Pages purgeable:                           1.\nTranslation faults:                  5.\n"
    )
    assert mac_free_bytes(text) == 34 * 16384
    assert mac_free_bytes("") == 0
    assert meminfo("MemTotal:       1000 kB\nMemAvailable:    250 kB\nHugePages_Total:  0\n") == {
        "MemTotal": 1000 << 10,
        "MemAvailable": 250 << 10,
    }


def test_this_machine() -> None:
    found = read_machine()
    assert 0 < found.free_bytes <= found.memory_bytes
    assert found.chip
    assert read_machine(working_set_bytes=5).working_set_bytes == 5


def test_drafted_rounds_of_a_long_context_keep_ten_buffers_on_a_gpu() -> None:
    """What MLX has under way stays in memory: with drafting, the scores of up to ten layers."""
    catalog = load_catalog()
    pair = size_of_entry(catalog.entries["31b-4bit"], catalog)
    mac = Machine("Apple M3 Ultra", 256 << 30, 192 << 30, True, 256 << 30)
    linux = Machine("AMD EPYC", 256 << 30, 192 << 30, True, 256 << 30)
    drafted, plain = pair.as_computed(mac, False), replace(pair, drafter_bytes=0).as_computed(mac, False)
    tokens = 100_000
    scores = 2 * pair.layers.heads * 17 * tokens * pair.item_bytes
    assert (drafted.buffers_in_flight, plain.buffers_in_flight) == (10, 1)
    assert pair.as_computed(linux, False).buffers_in_flight == 1
    short = replace(drafted, prefill_chunk=64)
    assert working_bytes(short, tokens) - working_bytes(replace(short, buffers_in_flight=1), tokens) >= 5 * scores
    assert working_bytes(short, tokens) >= 10 * scores
