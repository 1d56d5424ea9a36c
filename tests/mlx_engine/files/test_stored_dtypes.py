"""A dtype or a quantization that cannot be computed with is named, and not called damage."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.files.safetensors_header import ITEM_BITS
from mlx_engine.files.stored_dtypes import WHOLE_NUMBERS
from mlx_engine.loading.convert import convert
from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.target import load_target
from mlx_engine.protocol.errors import ModelFolderError
from models.memory_fit import size_of_folders
from models.verify import verify_folder
from tests.paths import GOLDEN

LAYER = "model.language_model.layers.0.mlp.up_proj"
TOWER = "model.vision_tower.patch_embedder"
ORDERING = "masked_embedding.token_ordering"
METHODS = {
    "compressed-tensors": {"weight_packed": "I32", "weight_scale": "BF16", "weight_shape": "I64"},
    "bitsandbytes": {"weight": "U8", "weight.absmax": "F32", "weight.quant_state.bitsandbytes__nf4": "U8"},
    "gptq": {"qweight": "I32", "qzeros": "I32", "scales": "F16", "g_idx": "I32"},
    "awq": {"qweight": "I32", "qzeros": "I32", "scales": "F16"},
    "fp8": {"weight": "F8_E4M3", "weight_scale_inv": "F32"},
    "modelopt": {"weight": "U8", "weight_scale": "F8_E4M3", "weight_scale_2": "F32", "input_scale": "F32"},
    "quanto": {"weight._data": "I8", "weight._scale": "F32"},
    "fp_quant": {"weight": "F4"},
}
"""What tools store for one layer, by the `quant_method` that they write."""

Stored = tuple[str, list[int], bytes]
"""Dtype, shape and data of a tensor."""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "e2b" / "target", tmp_path / "target"))


def edit_tensors(folder: Path, change: Callable[[dict[str, Stored]], object]) -> None:
    """Change the tensors of the folder's file, which may be of any dtype."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    tensors: dict[str, Stored] = {}
    for name, entry in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            tensors[name] = entry["dtype"], entry["shape"], content[begin + first : begin + last]
    change(tensors)
    header, data = {}, b""
    for name, (dtype, shape, own) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(own)]}
        data += own
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def zeros(dtype: str, shape: list[int]) -> Stored:
    return dtype, shape, b"\0" * (math.prod(shape) * ITEM_BITS[dtype] // 8)


def store(folder: Path, name: str, dtype: str) -> None:
    """Store a tensor as zeros of another dtype, or a new one."""
    edit_tensors(folder, lambda all: all.update({name: zeros(dtype, all.get(name, ("", [8, 8], b""))[1])}))


def quantize_by(folder: Path, method: str, is_named: bool = True) -> None:
    """Store one layer as the method does, and name the method in config.json."""

    def change(tensors: dict[str, Stored]) -> None:
        tensors.pop(f"{LAYER}.weight")
        tensors.update({f"{LAYER}.{part}": zeros(dtype, [8, 8]) for part, dtype in METHODS[method].items()})

    edit_tensors(folder, change)
    if is_named:
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 128}
        (folder / "config.json").write_text(json.dumps(config))


def said(call: Callable[[], Any]) -> str:
    with pytest.raises(ModelFolderError) as caught:
        call()
    return str(caught.value)


def refusals(folder: Path) -> list[str]:
    """What loading, converting, the memory fit and verifying say."""
    findings = [finding.problem for finding in verify_folder(folder, {})]
    assert len(findings) == 1
    calls = (
        lambda: load_target(folder),
        lambda: convert(folder, folder / "copy"),
        lambda: size_of_folders(folder, None),
    )
    return [*map(said, calls), *findings]


@pytest.mark.parametrize("method", METHODS)
def test_another_tools_quantization_is_refused_by_its_name(target: Path, method: str) -> None:
    quantize_by(target, method)
    for sentence in refusals(target):
        assert f"is quantized with {method}, which Slipstream cannot read. Use an MLX conversion" in sentence
        assert "ull the model again" not in sentence


@pytest.mark.parametrize("method", METHODS)
def test_without_a_name_the_tensor_is_named(target: Path, method: str) -> None:
    quantize_by(target, method, is_named=False)
    for sentence in refusals(target):
        assert LAYER in sentence
        assert "ull the model again" not in sentence


def test_a_name_that_is_left_over_does_not_matter(target: Path) -> None:
    config = json.loads((target / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "compressed-tensors"}
    (target / "config.json").write_text(json.dumps(config))
    load_target(target)
    assert not list(verify_folder(target, {}))
    convert(target, target / "copy", group_size=32)
    load_target(target / "copy")


@pytest.mark.parametrize("dtype", ["F64", "F8_E5M2", "F4", "F6_E2M3", "F8_E4M3FNUZ"])
@pytest.mark.parametrize("name", [f"{LAYER}.weight", TOWER])
def test_a_dtype_that_mlx_cannot_load_is_named(target: Path, name: str, dtype: str) -> None:
    store(target, name, dtype)
    for sentence in refusals(target):
        assert f"tensor {name!r} is stored as {dtype}, which MLX cannot load." in sentence
        assert ("Save the model again in bfloat16" if dtype == "F64" else "Use the model's bfloat16") in sentence
        assert "damaged" not in sentence


@pytest.mark.parametrize("dtype", ["C64", "F8_E8M0", "F8_E4M3", "U8", "I8", "BOOL", *WHOLE_NUMBERS])
def test_a_dtype_that_no_weight_has_is_named(target: Path, dtype: str) -> None:
    store(target, f"{LAYER}.weight", dtype)
    for sentence in refusals(target):
        called = f"{dtype} ({WHOLE_NUMBERS[dtype]})" if dtype in WHOLE_NUMBERS else dtype
        assert f"is stored as {called}, with which a model cannot be computed." in sentence


@pytest.mark.parametrize("dtype", ["C64", "F8_E8M0", "U8", "BOOL", "I64"])
def test_parts_that_are_not_loaded_may_be_anything_that_mlx_loads(target: Path, dtype: str) -> None:
    store(target, TOWER, dtype)
    load_target(target)
    assert not list(verify_folder(target, {}))


def test_an_assistants_dtypes_are_named_as_well(tmp_path: Path) -> None:
    assistant = Path(shutil.copytree(GOLDEN / "e2b" / "assistant", tmp_path / "assistant"))
    store(assistant, "pre_projection.weight", "F64")
    assert "'pre_projection.weight' is stored as F64" in said(lambda: load_assistant(assistant))


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_token_ids_in_half_precision_are_refused(tmp_path: Path, dtype: str) -> None:
    assistant = Path(shutil.copytree(GOLDEN / "e2b" / "assistant", tmp_path / "assistant"))
    store(assistant, ORDERING, dtype)
    for sentence in (
        said(lambda: load_assistant(assistant)),
        *(one.problem for one in verify_folder(assistant, {})),
    ):
        assert f"{ORDERING!r} is stored as {dtype}, which cannot tell token ids apart" in sentence


@pytest.mark.parametrize("dtype", ["I32", "I64", "U32", "I16"])
def test_token_ids_may_be_whole_numbers_of_any_size(tmp_path: Path, dtype: str) -> None:
    assistant = Path(shutil.copytree(GOLDEN / "e2b" / "assistant", tmp_path / "assistant"))
    store(assistant, ORDERING, dtype)
    load_assistant(assistant)
    assert not list(verify_folder(assistant, {}))


def test_the_method_is_named_where_older_versions_wrote_it(target: Path) -> None:
    quantize_by(target, "compressed-tensors", is_named=False)
    config = json.loads((target / "config.json").read_text())
    config["compression_config"] = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    (target / "config.json").write_text(json.dumps(config))
    assert all("is quantized with compressed-tensors" in sentence for sentence in refusals(target))


def test_half_a_byte_is_no_size(target: Path) -> None:
    edit_tensors(target, lambda all: all.update({TOWER: ("F4", [3], b"\0")}))
    assert "damaged" in said(lambda: load_target(target))
