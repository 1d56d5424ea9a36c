"""Files of every layout are read; what is malformed is refused with its file and the reason."""

from __future__ import annotations

import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.files.config_file import read_config
from mlx_engine.files.folder_files import opened, read_json
from mlx_engine.files.safetensors_header import Tensor, read_header
from mlx_engine.files.weight_files import read_tensors, weight_files
from mlx_engine.protocol.errors import ModelFolderError
from tests.paths import GOLDEN

LAYOUTS = ["e2b", "e4b", "12b-unified", "26b-a4b", "31b"]
PAIRS = {name: (GOLDEN / name / "target", GOLDEN / name / "assistant") for name in LAYOUTS}


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(ModelFolderError) as caught:
        call()
    return str(caught.value)


def header_of(path: Path) -> dict[str, Tensor]:
    with opened(path) as file:
        return read_header(path, file)


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return {"dtype": dtype, "shape": plain(shape), "data_offsets": plain(offsets)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_add_up_to_the_file(layout: str) -> None:
    for folder in PAIRS[layout]:
        size = sum(tensor.size_bytes for tensor in read_tensors(folder).values())
        file = folder / "model.safetensors"
        length = int.from_bytes(file.read_bytes()[:8], "little")
        assert size == file.stat().st_size - 8 - length


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        safetensors({}, length=3),
        safetensors({}, length=1),
        safetensors(b"not json"),
        safetensors([]),
        safetensors(b"[" * 100_000),
        safetensors(b'{"a": ' + b"9" * 5000 + b"}"),
        safetensors(b'{"a":{},"a":{}}'),
        safetensors(b"\xff\xfe{}"),
        safetensors({"a": 5}),
        safetensors({"a": entry(dtype="F31")}, b"8 bytes."),
        safetensors({"a": entry(dtype=["F32"])}, b"8 bytes."),
        safetensors({"a": entry(dtype=None)}, b"8 bytes."),
        safetensors({"a": entry(shape=(-2,))}, b"8 bytes."),
        safetensors({"a": entry(shape=(2.0,))}, b"8 bytes."),
        safetensors({"a": entry(shape=(True, 2))}, b"8 bytes."),
        safetensors({"a": entry(shape="2")}, b"8 bytes."),
        safetensors({"a": entry(shape=(1,) * 9, offsets=(0, 4))}, b"four"),
        safetensors({"a": entry(shape=(4294967298,))}, b"8 bytes."),
        safetensors({"a": entry(shape=(65536, 65536, 65536, 16384), offsets=(0, 0))}),
        safetensors({"a": entry(offsets=(0, 9))}, b"nine byte"),
        safetensors({"a": entry(offsets=(8, 0))}, b"8 bytes."),
        safetensors({"a": entry(offsets=(0, 8, 8))}, b"8 bytes."),
        safetensors({"a": entry(offsets=(4, 12))}, b"twelve bytes"),
        safetensors({"a": entry(), "b": entry()}, b"8 bytes."),
        safetensors({"a": entry(), "b": entry(offsets=(4, 12))}, b"twelve bytes"),
        safetensors({"a": entry()}, b"seven b"),
        safetensors({"a": entry()}, b"nine byte"),
    ],
)
def test_malformed_headers(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    words = refusal(lambda: header_of(path))
    assert str(path) in words
    assert "damaged" in words


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = (PAIRS["e2b"][0] / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    for size in random.Random(1).sample(range(len(data)), 100):
        path.write_bytes(data[:size])
        assert "damaged" in refusal(lambda: header_of(path))


def test_mutated_headers_are_read_or_refused_and_never_anything_else(tmp_path: Path) -> None:
    data = (PAIRS["e2b"][1] / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    path = tmp_path / "model.safetensors"
    draw = random.Random(2)
    refused = 0
    for _ in range(1000):
        mutated = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            mutated[draw.randrange(8 + length)] = draw.randrange(256)
        path.write_bytes(mutated)
        try:
            header_of(path)
        except ModelFolderError:
            refused += 1
    assert refused > 500


def test_a_header_is_bounded_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((7 << 20).to_bytes(8, "little"))
        file.truncate(1 << 32)
    tracemalloc.start()
    try:
        assert "not valid JSON" in refusal(lambda: header_of(path))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 50 << 20


def test_a_large_config_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate((8 << 20) + 1)
    assert "larger than 8 MiB" in refusal(lambda: read_json(path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_is_no_regular_file_is_neither_read_nor_waited_for(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(PAIRS["e2b"][0], tmp_path / "model"))
    (folder / name).unlink()

    def read() -> None:
        read_config(folder)
        read_tensors(folder)

    assert "is missing" in refusal(read)
    os.mkfifo(folder / name)
    assert "not a regular file" in refusal(read)
    (folder / name).unlink()
    (folder / name).mkdir()
    assert "not a regular file" in refusal(read)
    (folder / name).rmdir()
    (folder / name).symlink_to("/dev/zero")
    assert "outside its folder" in refusal(read)
    (folder / name).unlink()
    (folder / name).symlink_to(PAIRS["e2b"][0] / name)
    assert "outside its folder" in refusal(read)
    (folder / name).unlink()
    (folder / name).symlink_to(name)
    assert str(folder / name) in refusal(read)


def test_links_of_the_hub_cache_are_followed(tmp_path: Path) -> None:
    repo = tmp_path / "models--a--b"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(PAIRS["e2b"][0] / name, repo / "blobs" / f"hash-{name}")
        (snapshot / name).symlink_to(f"../../blobs/hash-{name}")
    assert read_config(snapshot) == read_config(PAIRS["e2b"][0])
    assert read_tensors(snapshot) == read_tensors(PAIRS["e2b"][0])


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    tensors = {
        "a.safetensors": {"a": entry()},
        "b.safetensors": {"b": entry()},
        "evil.safetensors": {"a": entry()},
    }
    for name, header in tensors.items():
        (tmp_path / name).write_bytes(safetensors(header, b"8 bytes."))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    assert read_tensors(tmp_path).keys() == {"a", "b"}
    index.write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": "evil.safetensors"}}))
    assert "repeats the tensor 'a'" in refusal(lambda: read_tensors(tmp_path))


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": []},
        {"weight_map": {}},
        {"weight_map": {"a": 5}},
        {"weight_map": {"a": "../a.safetensors"}},
        {"weight_map": {"a": "/a.safetensors"}},
        {"weight_map": {"a": "x.bin"}},
        {"weight_map": {"a": "sub/a.safetensors"}},
    ],
)
def test_an_index_that_makes_no_sense(tmp_path: Path, index: Any) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    assert str(path) in refusal(lambda: weight_files(tmp_path))
