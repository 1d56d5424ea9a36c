"""Weights in every packaging: what is complete and unambiguous loads, anything else is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_engine.files.weight_files import choose_weight_files, read_tensors, weight_files
from mlx_engine.loading.convert import convert
from mlx_engine.loading.pair import load_pair
from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.target import Gemma4Target, load_target
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import Load, Loading
from models import pocket
from models.memory_fit import size_of_folders
from models.verify import verify_folder
from tests.fakes.packagings import (
    Tensors,
    copied,
    edited_config,
    reweighted,
    sharded,
    text_only,
    write_index,
)
from tests.paths import GOLDEN

TARGET, ASSISTANT = GOLDEN / "e2b" / "target", GOLDEN / "e2b" / "assistant"
TABLE = "model.language_model.embed_tokens.weight"
TOKENS = mx.array([[2, 105, 30, 44, 106, 7]])
HEADS = (
    "lm_head.weight",
    "model.lm_head.weight",
    "language_model.lm_head.weight",
    "model.language_model.lm_head.weight",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied(TARGET, tmp_path / "target")


def logits_of(target: Gemma4Target) -> mx.array:
    return target.logits(target.forward(TOKENS, target.new_cache()))


def loads_as_before(folder: Path) -> None:
    """Also for the memory fit and `models verify`."""
    assert mx.array_equal(logits_of(load_target(folder)), logits_of(load_target(TARGET)))
    assert size_of_folders(folder, None) == size_of_folders(TARGET, None)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ModelFolderError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("count", [1, 3, 11])
def test_numbered_shards_need_no_index(folder: Path, count: int) -> None:
    sharded(folder, count)
    loads_as_before(folder)
    assert list(verify_folder(folder, {})) == []


def test_an_assistants_shards_need_none_either(tmp_path: Path) -> None:
    folder = copied(ASSISTANT, tmp_path / "assistant")
    sharded(folder, 2)
    assert load_assistant(folder).config == load_assistant(ASSISTANT).config


def test_a_stale_index_beside_a_whole_file_is_not_obeyed(folder: Path) -> None:
    write_index(folder, {TABLE: "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"})
    loads_as_before(folder)


def test_a_stale_index_beside_other_shards_is_not_obeyed(folder: Path) -> None:
    sharded(folder, 3)
    write_index(folder, {TABLE: "model-00001-of-00002.safetensors"})
    loads_as_before(folder)


@pytest.mark.parametrize("named", [{}, {TABLE: "pytorch_model-00001-of-00002.bin"}])
def test_an_index_of_no_safetensors_file_beside_a_whole_one_is_not_obeyed(
    folder: Path, named: dict[str, str]
) -> None:
    write_index(folder, named)
    loads_as_before(folder)
    assert list(verify_folder(folder, {})) == []
    (folder / "model.safetensors").unlink()
    assert "model.safetensors.index.json" in refusal(lambda: load_target(folder))


def test_an_index_that_has_forgotten_a_shard_is_not_obeyed(folder: Path) -> None:
    write_index(folder, {TABLE: sharded(folder, 3)[TABLE]})
    loads_as_before(folder)
    assert list(verify_folder(folder, {})) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model-Q4_0.gguf", "model-Q4_0.gguf, in the format of llama.cpp"),
        ("pytorch_model-00001-of-00002.bin", "a file of PyTorch, which can contain code"),
        ("consolidated.00.pth", "a file of PyTorch"),
        ("weights.npz", "weights.npz, in a format of NumPy"),
        ("adapter_model.safetensors", "an adapter, which is no model of its own"),
        ("adapters.safetensors", "Merge it into its model"),
        ("weights.00.safetensors", "weights.00.safetensors, which is not the name of a model's weights"),
    ],
)
def test_weights_in_another_format_are_named(folder: Path, name: str, words: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    (folder / "training_args.bin").touch()
    (folder / "optimizer.pt").touch()
    for said in (refusal(lambda: load_target(folder)), *(one.problem for one in verify_folder(folder, {}))):
        assert str(folder) in said
        assert words in said
        assert "missing" not in said
    (folder / "config.json").unlink()
    assert words in refusal(lambda: load_target(folder))


def test_the_rest_of_older_shards_beside_a_whole_file_does_not_matter(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"not looked at")
    loads_as_before(folder)
    [found] = verify_folder(folder, {})
    assert found.place == "model-00002-of-00002.safetensors"


def test_an_index_decides_between_shards(folder: Path) -> None:
    write_index(folder, sharded(folder, 3))
    (folder / "model-00001-of-00001.safetensors").write_bytes(b"not looked at")
    loads_as_before(folder)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_shard_is_named(folder: Path, missing: int) -> None:
    sharded(folder, 3)
    name = f"model-{missing:05d}-of-00003.safetensors"
    (folder / name).unlink()
    for read in (
        lambda: load_target(folder),
        lambda: read_tensors(folder),
        lambda: convert(folder, folder / "copy"),
    ):
        assert f"{name} is missing" in refusal(read)


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("names", "indexed"),
    [
        ({"model.safetensors", ONE, TWO}, None),
        ({"model.safetensors", ONE, TWO}, [ONE, TWO]),
        ({"model.safetensors", "a.safetensors"}, ["a.safetensors"]),
        ({ONE, TWO, "model-00001-of-00001.safetensors"}, None),
        ({ONE, "model-00001-of-00003.safetensors"}, None),
        ({ONE, TWO, "model-00001-of-00001.safetensors"}, ["model-00001-of-00003.safetensors"]),
    ],
)
def test_two_sets_are_refused_with_a_file_of_each(names: set[str], indexed: list[str] | None) -> None:
    said = refusal(lambda: choose_weight_files(names, indexed, "here"))
    assert "here contains two sets of weights" in said
    assert sum(name in said for name in {*names, *(indexed or [])}) == 2


@pytest.mark.parametrize(
    ("names", "indexed", "chosen"),
    [
        (set(), None, ["model.safetensors"]),
        ({ONE, TWO}, [ONE], [ONE, TWO]),
        ({ONE, TWO, "a.safetensors"}, ["a.safetensors"], ["a.safetensors"]),
        ({"model.safetensors"}, ["model.safetensors"], ["model.safetensors"]),
        ({"model.safetensors", ONE}, [ONE, TWO], ["model.safetensors"]),
        ({ONE}, [ONE, TWO], [ONE, TWO]),
        ({ONE, "model-00001-of-00003.safetensors"}, [ONE, TWO], [ONE, TWO]),
        ({TWO}, None, [ONE, TWO]),
        ({"model-00000-of-00002.safetensors"}, None, ["model.safetensors"]),
        ({"model-00003-of-00002.safetensors"}, None, ["model.safetensors"]),
        ({"model-1-of-1.safetensors", "adapter_model.safetensors"}, None, ["model.safetensors"]),
        ({"model-00001-of-99999.safetensors/x"}, None, ["model.safetensors"]),
    ],
)
def test_what_is_chosen(names: set[str], indexed: list[str] | None, chosen: list[str]) -> None:
    assert choose_weight_files(names, indexed, "here") == chosen


def test_the_number_of_claimed_shards_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-99999.safetensors").touch()
    assert len(weight_files(tmp_path)) == 99_999
    assert "model-00001-of-99999.safetensors is damaged" in refusal(lambda: read_tensors(tmp_path))


@pytest.mark.parametrize("head", HEADS)
def test_the_stored_head_of_a_tied_model_is_not_loaded(folder: Path, tmp_path: Path, head: str) -> None:
    reweighted(folder, lambda weights: weights | {head: weights[TABLE] * 2})
    loads_as_before(folder)
    convert(folder, tmp_path / "copy", group_size=32)
    assert not any("lm_head" in name for name in read_tensors(tmp_path / "copy"))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("level", ["top", "text", "both"])
def test_an_untied_head_is_used_whichever_level_says_so(
    folder: Path, tmp_path: Path, head: str, level: str
) -> None:
    reweighted(folder, lambda weights: weights | {head: weights[TABLE] * 0 + weights[TABLE][::-1]})
    with edited_config(folder) as config:
        for place, said in ((config, "top"), (config["text_config"], "text")):
            place["tie_word_embeddings"] = level not in (said, "both")
    exact = logits_of(load_target(TARGET))[:, ::-1]
    assert mx.allclose(logits_of(load_target(folder)), exact, atol=1e-4)
    size = size_of_folders(folder, None).target_bytes
    assert size == (size_of_folders(TARGET, None).target_bytes or 0) + read_tensors(TARGET)[TABLE].size_bytes
    convert(folder, tmp_path / "copy", group_size=32)
    assert load_target(tmp_path / "copy").facts == load_target(folder).facts
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert config["text_config"]["tie_word_embeddings"] is False


def test_an_untied_head_that_is_not_stored_is_said(folder: Path) -> None:
    with edited_config(folder) as config:
        config["tie_word_embeddings"] = False
    said = refusal(lambda: load_target(folder))
    assert "lm_head.weight is missing" in said
    assert [found.problem for found in verify_folder(folder, {})] == [said]
    with edited_config(folder) as config:
        config["tie_word_embeddings"] = "no"
    assert "tie_word_embeddings is 'no'" in refusal(lambda: load_target(folder))


def test_an_assistants_untied_head_replaces_its_table(tmp_path: Path) -> None:
    folder = copied(ASSISTANT, tmp_path / "assistant")
    reweighted(folder, lambda weights: weights | {"lm_head.weight": weights["model.embed_tokens.weight"] * 2})
    table = load_assistant(folder).model.embed_tokens.weight
    with edited_config(folder) as config:
        config["tie_word_embeddings"] = False
    without_head = copied(ASSISTANT, tmp_path / "headless")
    shutil.copy(folder / "config.json", without_head)
    assert "lm_head.weight is missing" in refusal(lambda: load_assistant(without_head))
    assert mx.array_equal(load_assistant(folder).model.embed_tokens.weight, table * 2)
    assert size_of_folders(TARGET, folder) == size_of_folders(TARGET, ASSISTANT)
    convert(folder, tmp_path / "copy", group_size=32)
    assert mx.array_equal(load_assistant(tmp_path / "copy").model.embed_tokens.weight, table * 2)


@pytest.mark.parametrize("model_type", ["gemma4_text", "gemma4_unified_text"])
@pytest.mark.parametrize("prefix", ["model.", "", "model.language_model.", "language_model.model."])
def test_the_text_model_alone_under_any_names(tmp_path: Path, model_type: str, prefix: str) -> None:
    source = GOLDEN / "31b" / "target"
    folder = copied(source, tmp_path / "text")
    text_only(folder, model_type, prefix)
    assert mx.array_equal(logits_of(load_target(folder)), logits_of(load_target(source)))
    assert size_of_folders(folder, None) == size_of_folders(source, None)
    assert list(verify_folder(folder, {})) == []
    convert(folder, tmp_path / "copy", group_size=32)
    assert load_target(tmp_path / "copy").facts == load_target(source).facts
    assert all(name.startswith("model.") for name in read_tensors(tmp_path / "copy"))


@pytest.mark.parametrize("prefix", ["", "language_model.", "model.language_model.", "language_model.model."])
def test_an_assistant_under_any_names(tmp_path: Path, prefix: str) -> None:
    folder = copied(ASSISTANT, tmp_path / "assistant")

    def renamed(name: str) -> str:
        is_body = name.startswith("model.")
        return (
            prefix + (name.removeprefix("model.") if "model." in prefix or not prefix else name)
            if is_body
            else name
        )

    reweighted(folder, lambda weights: {renamed(name): array for name, array in weights.items()})
    assert not any(name.startswith("model.layers.") for name in read_tensors(folder))
    loaded, usual = load_assistant(folder), load_assistant(ASSISTANT)
    hidden = mx.random.normal((1, 3, usual.config.text.hidden_size), key=mx.random.key(0))
    assert mx.array_equal(loaded.logits(hidden), usual.logits(hidden))
    assert size_of_folders(TARGET, folder) == size_of_folders(TARGET, ASSISTANT)
    assert list(verify_folder(folder, {})) == []


def test_tables_of_the_rotation_are_not_loaded(folder: Path) -> None:
    names = ("model.rotary_emb.inv_freq", "model.language_model.rotary_emb.full_attention_inv_freq")
    reweighted(folder, lambda weights: weights | {name: mx.zeros((4,)) for name in names})
    loads_as_before(folder)


def test_one_tensor_under_two_names_is_refused(folder: Path) -> None:
    reweighted(
        folder, lambda weights: weights | {"language_model.model.norm.weight": weights[f"{TABLE[:21]}norm.weight"]}
    )
    said = refusal(lambda: load_target(folder))
    assert "twice" in said
    assert "language_model.model.norm.weight" in said
    assert [found.problem for found in verify_folder(folder, {})] == [said]


def test_one_tensor_of_an_assistant_under_two_names_is_refused(tmp_path: Path) -> None:
    folder = copied(ASSISTANT, tmp_path / "assistant")
    reweighted(folder, lambda weights: weights | {"norm.weight": weights["model.norm.weight"]})
    said = refusal(lambda: load_assistant(folder))
    assert "contains the tensor 'norm.weight' twice" in said
    assert [found.problem for found in verify_folder(folder, {})] == [said]


def test_progress_counts_what_is_read(folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((pocket.TARGET_FOLDER / name).read_bytes())

    def with_towers(weights: Tensors) -> Tensors:
        towers = (
            "model.vision_tower.x",
            "model.embed_audio.x",
            "lm_head.weight",
            "layers.5.self_attn.k_proj.weight",
        )
        return weights | {name: mx.zeros((1000, 10)) for name in towers}

    reweighted(folder, with_towers)
    drafter = reweighted(
        copied(ASSISTANT, tmp_path / "drafter"), lambda w: w | {"lm_head.weight": mx.zeros((9, 9))}
    )
    steps: list[Loading] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlx_engine.text.prompt.ChatFormat.check_fits", lambda self, size: None)
        load_pair(Load(str(folder), (str(drafter),)), steps.append)
    assert steps[-1].done_bytes == steps[-1].total_bytes > 0
