"""Model folders from anywhere: what is wrong is said in one sentence, and nothing in them is ever run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from mlx_engine.files import safetensors_header
from mlx_engine.network import checkpoint
from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.mlx_lm_gemma4 import gemma4
from mlx_engine.network.target import load_target
from mlx_engine.protocol.errors import ModelFolderError, PairMismatchError
from mlx_engine.speculation.assistant_drafter import check_pair
from tests.fakes import tiny
from tests.mlx_engine.helpers import load_tensors
from tests.paths import GOLDEN


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "e2b" / "target", tmp_path / "target"))


@pytest.fixture
def assistant(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "e2b" / "assistant", tmp_path / "assistant"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def with_header(folder: Path, header: bytes, data: bytes = b"") -> None:
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)


def tensor(shape: list[int], offsets: list[int], dtype: str = "F32") -> bytes:
    return json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="not a folder"):
        load_target(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(target: Path, name: str) -> None:
    (target / name).unlink()
    with pytest.raises(ModelFolderError, match=name):
        load_target(target)


@pytest.mark.parametrize("text", ["", "{", "[]", "nonsense", '{"a": ' * 9_000, "\x80"])
def test_a_config_that_is_not_json(target: Path, text: str) -> None:
    (target / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelFolderError, match=r"config\.json"):
        load_target(target)


def test_an_unknown_model_type_is_named(target: Path) -> None:
    edit(target, lambda c: c.update(model_type="llama"))
    with pytest.raises(ModelFolderError, match=r"'llama'.*Gemma 4"):
        load_target(target)


def test_a_target_is_not_an_assistant(target: Path) -> None:
    with pytest.raises(ModelFolderError, match="'gemma4' model, not a Gemma 4 assistant"):
        load_assistant(target)


@pytest.mark.parametrize("key", ["model_file", "auto_map"])
def test_a_config_that_names_code_is_refused(target: Path, key: str) -> None:
    edit(target, lambda c: c.update({key: "evil.py"}))
    with pytest.raises(ModelFolderError, match="never runs code"):
        load_target(target)


def test_code_that_nothing_names_is_no_reason_to_refuse_and_is_not_run(target: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for name in ("modeling.py", "mlx_engine.py", "json.py"):
        (target / name).write_text(f"open({str(marker)!r}, 'w')")
    load_target(target)
    assert not marker.exists()


@pytest.mark.parametrize("bytes_left", [0, 4, 8, 100, -1])
def test_a_truncated_file(target: Path, bytes_left: int) -> None:
    path = target / "model.safetensors"
    path.write_bytes(path.read_bytes()[:bytes_left])
    with pytest.raises(ModelFolderError, match="damaged"):
        load_target(target)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b'{"x": 3}',
        tensor([1], [0, 0]),
        tensor([2], [0, 4]),
        tensor([0], [0, 4]),
        tensor([-1], [0, 4]),
        tensor([1.0], [0, 4]),  # type: ignore[list-item]
        tensor([True], [0, 4]),
        tensor([1], [4, 8]),
        tensor([1], [0, 4], "F99"),
        tensor([1] * 9, [0, 4]),
        b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
        b'"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
        b'"y": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
    ],
)
def test_a_header_that_lies_is_refused(target: Path, header: bytes) -> None:
    with_header(target, header, b"\0" * 4)
    with pytest.raises(ModelFolderError, match="damaged"):
        checkpoint.load_weights(target)


def test_mlx_begins_at_the_start_of_a_file_whose_offset_it_shares(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS opens /dev/fd/N as a duplicate of N, with one offset for both; Linux opens the file anew."""
    offsets: list[int] = []
    load = mx.load

    def looked_at(path: str, **settings: Any) -> Any:
        offsets.append(os.lseek(int(path.rpartition("/")[2]), 0, os.SEEK_CUR))
        return load(path, **settings)

    monkeypatch.setattr(mx, "load", looked_at)
    load_target(target)
    assert offsets == [0]


def test_a_header_longer_than_its_file(target: Path) -> None:
    (target / "model.safetensors").write_bytes((3).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelFolderError, match="claims 3 bytes in a file of 10"):
        checkpoint.load_weights(target)


def test_a_header_longer_than_any_that_was_published(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    length = int.from_bytes((target / "model.safetensors").read_bytes()[:8], "little")
    monkeypatch.setattr(safetensors_header, "MAX_HEADER_BYTES", length)
    mx.eval(checkpoint.load_weights(target))
    monkeypatch.setattr(safetensors_header, "MAX_HEADER_BYTES", length - 1)
    with pytest.raises(ModelFolderError, match=f"claims {length} bytes"):
        checkpoint.load_weights(target)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.update(hidden_size=64),
        lambda text: text.update(vocab_size=319),
        lambda text: text.update(num_hidden_layers=text["num_hidden_layers"] + 1),
        lambda text: text.update(num_hidden_layers=513),
        lambda text: text.update(hidden_size="big"),
        lambda text: text.update(num_attention_heads=0),
        lambda text: text.update(head_dim=-8),
        lambda text: text.update(layer_types=["sliding_attention"]),
        lambda text: text.pop("rope_parameters") and text.update(rope_parameters=3),
    ],
)
def test_a_config_that_does_not_fit_the_weights(target: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(target, lambda c: change(c["text_config"]))
    with pytest.raises(ModelFolderError):
        load_target(target)


def test_a_wrong_shape_is_named_with_both(target: Path) -> None:
    weights = load_tensors(target / "model.safetensors")
    name = next(n for n in weights if n.endswith("layers.0.mlp.up_proj.weight"))
    weights[name] = weights[name][:-1]
    mx.save_safetensors(str(target / "model.safetensors"), weights)
    with pytest.raises(ModelFolderError, match=r"up_proj.*has shape .*, but config\.json says"):
        load_target(target)


def split(folder: Path) -> dict[str, str]:
    weights = load_tensors(folder / "model.safetensors")
    names = sorted(weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, own in shards.items():
        mx.save_safetensors(str(folder / shard), {n: weights[n] for n in own})
    (folder / "model.safetensors").unlink()
    index = {n: shard for shard, own in shards.items() for n in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return index


def test_shards_are_those_that_the_index_names(target: Path) -> None:
    split(target)
    (target / "model-evil.safetensors").write_bytes(b"not looked at")
    load_target(target)


def test_a_missing_shard_is_named(target: Path) -> None:
    split(target)
    (target / "b.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=r"b\.safetensors is missing"):
        load_target(target)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", "a.bin"])
def test_an_index_cannot_reach_outside(target: Path, name: str) -> None:
    index = split(target)
    index[min(index)] = name
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(ModelFolderError, match="not a shard of this folder"):
        load_target(target)


def test_a_drafter_of_another_variant_is_refused_with_both_numbers(assistant: Path) -> None:
    other = load_target(GOLDEN / "31b" / "target")
    backbone = json.loads((assistant / "config.json").read_text())["backbone_hidden_size"]
    drafter = load_assistant(assistant)
    if backbone != other.facts.hidden_size:
        with pytest.raises(PairMismatchError, match=rf"hidden size of {backbone}.*{other.facts.hidden_size}"):
            check_pair(drafter, other.facts, ("d", "t"))
    else:
        with pytest.raises(PairMismatchError, match=r"\d+; t has \d+"):
            check_pair(drafter, other.facts, ("d", "t"))


QUANTIZED = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 32, "global_head_dim": 64}


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_checkpoint_computes_what_was_quantized(tmp_path: Path, bits: int) -> None:
    text = tiny.text_config("31b") | QUANTIZED
    config = {"model_type": "gemma4", "vocab_size": tiny.VOCAB, "text_config": text}
    model = gemma4.Model(gemma4.ModelArgs.from_dict(json.loads(json.dumps(config))))
    nn.quantize(model, group_size=32, bits=bits)
    config["quantization"] = {"group_size": 32, "bits": bits}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = {
        k.replace("language_model.model.", "model.language_model."): v for k, v in tree_flatten(model.parameters())
    }
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    target = load_target(tmp_path)
    tokens = mx.array([[2, 7, 9, 11]])
    assert target.dtype_name == f"{bits}-bit"
    expected = model(tokens)[0]
    assert mx.allclose(target.logits(target.forward(tokens, target.new_cache())), expected, atol=1e-5)


def test_a_quantized_assistant_scores_what_its_table_holds() -> None:
    network = tiny.assistant("e2b", hidden_size_of_assistant=32)
    hidden = mx.random.normal((1, 3, 32), key=mx.random.key(0))
    nn.quantize(network.model, group_size=32, bits=8, class_predicate=lambda path, _: path == "embed_tokens")
    ids = network.masked_embedding.candidates(hidden)
    everywhere = network.model.embed_tokens.as_linear(hidden)
    logits = network.logits(hidden)
    got, expected = (mx.take_along_axis(scores, ids, axis=-1) for scores in (logits, everywhere))
    assert mx.allclose(got, expected, atol=1e-4)
    assert mx.isfinite(logits).sum().item() == ids.size
    assert network.argmax(hidden).tolist() == mx.argmax(logits, axis=-1).tolist()


def test_a_foreign_quantization_is_refused_in_words(target: Path) -> None:
    weights = load_tensors(target / "model.safetensors")
    weights["model.language_model.layers.0.mlp.up_proj.scales"] = mx.zeros((1,))
    mx.save_safetensors(str(target / "model.safetensors"), weights)
    with pytest.raises(ModelFolderError, match="Use an MLX conversion"):
        load_target(target)
