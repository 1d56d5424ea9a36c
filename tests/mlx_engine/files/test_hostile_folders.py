"""A folder from a stranger is data: whatever it holds is read within bounds or refused in words."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_engine.files import folder_files
from mlx_engine.files.safetensors_header import Tensor, read_header
from mlx_engine.files.weight_files import read_tensors
from mlx_engine.loading.generation_config import GenerationConfig
from mlx_engine.loading.pair import load_pair
from mlx_engine.network import checkpoint
from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.checkpoint import load_weights
from mlx_engine.network.target import load_target
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import Load
from models.pocket import TARGET_FOLDER
from tests.cases import cases
from tests.mlx_engine.helpers import load_tensors
from tests.paths import GOLDEN

E2B = GOLDEN / "e2b"
READ_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with every file that is ever read."""
    folder = Path(shutil.copytree(E2B / "target", tmp_path / "target"))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TARGET_FOLDER / name, folder)
    return folder


@pytest.fixture
def assistant(tmp_path: Path) -> Path:
    return Path(shutil.copytree(E2B / "assistant", tmp_path / "assistant"))


def read_all(folder: Path) -> None:
    """All that loading a pair reads."""
    GenerationConfig.read(folder)
    if not folder_files.is_there(folder / "chat_template.jinja"):
        folder_files.read_json(folder / "tokenizer_config.json")
    load_target(folder)
    load_pair(Load(str(folder)), lambda event: None)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ModelFolderError) as caught:
        call()
    return str(caught.value)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


def directory(path: Path, outside: Path) -> None:
    path.mkdir()


def link_outside(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def link_to_a_brother(path: Path, outside: Path) -> None:
    """Whose name begins as the folder's does."""
    brother = path.parent.with_name(path.parent.name + "-2")
    brother.mkdir()
    shutil.copy(outside, brother / path.name)
    path.symlink_to(f"../{brother.name}/{path.name}")


def link_to_itself(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


def link_to_nothing(path: Path, outside: Path) -> None:
    path.symlink_to("not there")


@pytest.mark.parametrize("name", READ_FILES)
@pytest.mark.parametrize(
    "put", [fifo, device, directory, link_outside, link_to_a_brother, link_to_itself, link_to_nothing]
)
def test_what_is_no_file_of_the_folder_is_neither_read_nor_waited_for(
    folder: Path, tmp_path: Path, name: str, put: Callable[[Path, Path], None]
) -> None:
    (folder / name).rename(tmp_path / "outside")
    if name == "tokenizer_config.json":
        (folder / "chat_template.jinja").unlink()
    put(folder / name, tmp_path / "outside")
    assert str(folder / name) in refusal(lambda: read_all(folder))


def test_links_are_followed_within_the_folder_and_to_the_blobs_of_the_hubs_cache(
    folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "models--a--b"
    snapshot = model / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (model / "blobs").mkdir()
    for number, name in enumerate(sorted(path.name for path in folder.iterdir())):
        (folder / name).rename(model / "blobs" / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    (snapshot / "model.safetensors").rename(snapshot / "weights")
    (snapshot / "model.safetensors").symlink_to("weights")
    assert load_weights(snapshot).keys() == load_weights(E2B / "target").keys()


@pytest.mark.parametrize(
    ("name", "words"),
    [("tokenizer.json", "64 MiB"), ("config.json", "8 MiB"), ("chat_template.jinja", "8 MiB")],
)
def test_a_huge_file_is_not_read(folder: Path, name: str, words: str) -> None:
    with (folder / name).open("ab") as file:
        file.truncate(500 << 20)
    assert words in refusal(lambda: read_all(folder))


def test_a_file_that_is_exchanged_after_the_check_is_not_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "model.safetensors"
    expected = load_tensors(path)

    def exchanging(path: Path, file: Any) -> dict[str, Tensor]:
        tensors = read_header(path, file)
        path.unlink()
        path.write_bytes(b"something else")
        return tensors

    monkeypatch.setattr(checkpoint, "read_header", exchanging)
    loaded = load_weights(folder)
    assert all(mx.array_equal(loaded[name], array) for name, array in expected.items())


def test_a_file_cut_short_after_the_check_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cutting(*arguments: Any) -> None:
        os.truncate(folder / "model.safetensors", 5000)
        read(*arguments)

    read = checkpoint._read
    monkeypatch.setattr(checkpoint, "_read", cutting)
    assert "could not be read" in refusal(lambda: load_target(folder))


def test_mutated_headers_are_refused_or_harmless(assistant: Path) -> None:
    path = assistant / "model.safetensors"
    good = path.read_bytes()
    length = int.from_bytes(good[:8], "little")
    header, data = good[8 : 8 + length], good[8 + length :]
    draw = random.Random(4)
    refused = 0
    count = cases(400, 20_000)
    for _ in range(count):
        path.write_bytes(mutated(header, data, draw))
        try:
            read_tensors(assistant)
        except ModelFolderError:
            refused += 1
            continue
        with suppress(ModelFolderError):  # MLX is stricter about escapes and numbers that nobody reads
            mx.eval(load_weights(assistant))
    assert count / 2 < refused < count


def mutated(header: bytes, data: bytes, draw: random.Random) -> bytes:
    """Bytes, numbers or entries of a header changed; its length right, or not."""
    text = bytearray(header)
    kind = draw.randrange(4)
    if kind == 0:
        for _ in range(draw.randint(1, 3)):
            text[draw.randrange(len(text))] = draw.randrange(256)
    elif kind < 3:
        entries = json.loads(header)
        name = draw.choice(list(entries))
        key = draw.choice(["shape", "data_offsets", "dtype", "other"])
        value: Any = draw.choice([-1, 0, 1, 2, 3, 5, 31, 33, 1.5, True, None, "8", [], {}])
        if kind == 1 and isinstance(entries[name].get(key), list) and entries[name][key]:
            entries[name][key][draw.randrange(len(entries[name][key]))] = value
        elif draw.random() < 0.5:
            entries[name][key] = draw.choice([value, [value] * draw.randint(0, 9), "F16", "I64", "U8"])
        else:
            entries[draw.choice(["x", "", "__metadata__", "\ud800"])] = draw.choice([value, entries.pop(name)])
        text = bytearray(json.dumps(entries).encode())
    elif draw.random() < 0.5:
        del text[draw.randrange(len(text)) :]
    else:
        data = data[: draw.randrange(len(data))]
    claimed = len(text) if draw.random() < 0.95 else draw.choice([0, 1, len(text) - 1, len(text) + 1])
    return claimed.to_bytes(8, "little") + bytes(text) + data


def test_a_file_cut_anywhere_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    good = path.read_bytes()
    for size in random.Random(1).sample(range(len(good)), 50):
        path.write_bytes(good[:size])
        assert "damaged" in refusal(lambda: load_weights(folder))


HOSTILE_NUMBERS = (-1, 0, 1, 3, 5, 7, 31, 33, 319, 321, 513, 0.5, -0.0, math.nan, math.inf, 1e9)
"""Some are one more or less than right. None would fill the memory if it passed."""
HOSTILE_VALUES: list[Any] = [*HOSTILE_NUMBERS, True, None, "8", "", "a" * 5000, [], [1], {}, {"a": []}, [[]] * 9]


def test_generated_configs_are_refused_or_harmless(folder: Path, assistant: Path) -> None:
    draw = random.Random(7)
    refused = harmless = 0
    count = cases(100, 500)
    for number in range(count):
        loaded, load = ((folder, load_target), (assistant, load_assistant))[number % 2]
        good = (loaded / "config.json").read_text()
        edit(loaded, lambda config: spoil(config, draw))
        try:
            load(loaded)
        except ModelFolderError as error:
            refused += str(loaded) in str(error) and len(str(error)) < 1000
        else:
            harmless += 1
        (loaded / "config.json").write_text(good)
    assert refused + harmless == count
    assert min(refused, harmless) > 5


def spoil(config: dict[str, Any], draw: random.Random) -> None:
    """Change, remove or add a few values at any depth."""
    for _ in range(draw.randint(1, 3)):
        place = config
        while True:
            inner = [value for value in place.values() if isinstance(value, dict) and value]
            if not inner or draw.random() < 0.3:
                break
            place = draw.choice(inner)
        key = draw.choice([*place, "num_experts", "enable_moe_block", "quantization", "per_layer_config"])
        if draw.random() < 0.1:
            place.pop(key, None)
        else:
            place[key] = draw.choice(HOSTILE_VALUES)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_hidden_layers", 513, "num_hidden_layers is 513, where a whole number from 1 to 512"),
        ("vocab_size", 0, "vocab_size is 0"),
        ("num_attention_heads", 0, "num_attention_heads is 0"),
        ("hidden_size", "32", "hidden_size is '32', where a whole number"),
        ("hidden_size", True, "hidden_size is True"),
        ("rms_norm_eps", math.nan, "rms_norm_eps is nan, where a number from 0 to 1"),
        ("num_key_value_heads", 3, "num_key_value_heads is 3, where a divisor"),
        ("layer_types", ["full_attention"], "layer_types is"),
        ("num_kv_shared_layers", 512, "num_kv_shared_layers is 512, where less than num_hidden_layers"),
        ("tie_word_embeddings", "no", "tie_word_embeddings is 'no', where true or false"),
    ],
)
def test_a_number_out_of_range_is_named_with_its_range(folder: Path, key: str, value: Any, words: str) -> None:
    edit(folder, lambda config: config["text_config"].update({key: value}))
    assert words in refusal(lambda: load_target(folder))


@pytest.mark.parametrize(
    "value", [None, "", "llama", "gemma3", "Gemma4", 4, 4.0, True, [], ["gemma4"], {}, "gemma4 "]
)
def test_a_model_type_that_is_not_supported_is_named_with_those_that_are(folder: Path, value: Any) -> None:
    edit(folder, lambda config: config.update(model_type=value))
    said = refusal(lambda: load_target(folder))
    assert f"{str(value)!r} model" in said
    assert "gemma4_text" in said


@pytest.mark.parametrize("bits", [3.5, 0, -1, 7, 9, 64, "4", True, None, [4]])
@pytest.mark.parametrize("where", ["bits", "group_size", "mode", "layer"])
def test_an_odd_quantization_is_refused(folder: Path, bits: Any, where: str) -> None:
    settings: dict[str, Any] = {"group_size": 64, "bits": 4}
    if where == "layer":
        settings["model.layers.0"] = {"group_size": 0, "bits": bits}
    else:
        settings[where] = 65 if bits == 64 else bits
    edit(folder, lambda config: config.update(quantization=settings))
    weights = load_weights(folder)
    weights["model.language_model.embed_tokens.scales"] = mx.zeros((1, 1))
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    assert "quantization" in refusal(lambda: load_target(folder))


def test_a_centroid_head_that_names_tokens_beyond_the_table_is_refused(assistant: Path) -> None:
    weights = load_weights(assistant)
    ordering = weights["masked_embedding.token_ordering"]
    mx.eval(weights)
    for wrong in (ordering + 1, ordering - 1):
        mx.save_safetensors(
            str(assistant / "model.safetensors"), weights | {"masked_embedding.token_ordering": wrong}
        )
        assert "token_ordering" in refusal(lambda: load_assistant(assistant))


def test_a_tensor_of_another_kind_is_refused_with_both(folder: Path) -> None:
    weights = load_weights(folder)
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights | {name: weights[name].astype(mx.int32)})
    assert "int32" in refusal(lambda: load_target(folder))
