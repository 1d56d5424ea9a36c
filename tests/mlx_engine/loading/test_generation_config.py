"""What a folder's generation_config.json asks for is done, however it is written; all files' end tokens count."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.files.config_file import read_config
from mlx_engine.loading.end_tokens import end_tokens
from mlx_engine.loading.generation_config import GenerationConfig
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import Generate, Message
from mlx_engine.text.prompt import ChatFormat
from mlx_engine.text.reply_text import TextStream
from mlx_engine.text.tokenizer import read_special_tokens_map, read_tokenizer_config, special_tokens
from models.pocket import TARGET_FOLDER
from tests.fakes.folders import write_pair
from tests.mlx_engine.rig import Rig, only, token_ids

pytestmark = pytest.mark.slow

CONTEXT = 512
HELLO = (Message("user", "Hello there, how are you?"),)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"), CONTEXT)


@pytest.fixture(scope="module")
def rig(pair: tuple[Path, Path]) -> Rig:
    return Rig(*pair)


def test_stop_tokens_of_the_folder_are_honoured(pair: tuple[Path, Path], tmp_path: Path, rig: Rig) -> None:
    said = token_ids(rig.ask(Generate(1, HELLO, max_tokens=12)))
    stop = said[6]
    folder = Path(shutil.copytree(pair[0], tmp_path / "t"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop, "do_sample": False}))
    stopping = Rig(folder, pair[1])
    emitted = stopping.ask(Generate(1, HELLO, max_tokens=12))
    assert token_ids(emitted) == said[: said.index(stop) + 1]
    assert only(events.Finished, emitted)[0].reason == "stop"
    text = "".join(event.text for event in emitted if isinstance(event, events.Round | events.Finished))
    stream = TextStream(stopping.engine._format._tokenizer)
    assert text == stream.add(said[: said.index(stop)]) + stream.finish(), "the stop token itself is not text"


@pytest.mark.parametrize("length", [0, 4])
def test_suppressed_tokens_are_never_said(pair: tuple[Path, Path], tmp_path: Path, rig: Rig, length: int) -> None:
    said = set(token_ids(rig.ask(Generate(1, HELLO, max_tokens=12))))
    folder = Path(shutil.copytree(pair[0], tmp_path / "t"))
    settings = {"suppress_tokens": [*said, 258_883], "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    emitted = Rig(folder, pair[1]).ask(Generate(1, HELLO, draft_length=length, max_tokens=12))
    assert not said & set(token_ids(emitted))


@pytest.mark.parametrize("key", ["suppress_tokens", "eos_token_id"])
def test_a_folder_that_leaves_no_token_for_a_reply_is_refused(
    pair: tuple[Path, Path], tmp_path: Path, key: str
) -> None:
    folder = Path(shutil.copytree(pair[0], tmp_path / "t"))
    vocabulary = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    (folder / "generation_config.json").write_text(json.dumps({key: [*range(vocabulary)]}))
    with pytest.raises(ModelFolderError, match=r"generation_config\.json leaves no token for a reply"):
        Rig(folder, pair[1])


USUAL = GenerationConfig()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({}, USUAL),
        ({"unknown": object.__name__, "cache_implementation": "hybrid"}, USUAL),
        ({"eos_token_id": 1}, GenerationConfig(eos_tokens=frozenset({1}))),
        ({"eos_token_id": [1.0, "106", 50]}, GenerationConfig(eos_tokens=frozenset({1, 106, 50}))),
        ({"eos_token_id": None, "suppress_tokens": None, "temperature": None, "top_k": None}, USUAL),
        ({"suppress_tokens": 3.0}, GenerationConfig(suppressed=frozenset({3}))),
        ({"suppress_tokens": [-1, 7]}, GenerationConfig(suppressed=frozenset({7}))),
        ({"top_k": -1}, USUAL),
        ({"top_k": 0}, USUAL),
        ({"top_k": 64.0, "top_p": "0.95"}, GenerationConfig(top_k=64, top_p=0.95)),
        ({"top_k": "64", "top_p": 0}, GenerationConfig(top_k=64)),
        ({"temperature": "1.0"}, USUAL),
        ({"temperature": 0}, GenerationConfig(default_temperature=0)),
        ({"temperature": 0, "do_sample": True}, GenerationConfig(default_temperature=0)),
        ({"temperature": 0.7, "do_sample": False}, GenerationConfig(default_temperature=0)),
        ({"temperature": 0.7, "do_sample": "false"}, GenerationConfig(default_temperature=0)),
        ({"temperature": 0.7, "do_sample": 1}, GenerationConfig(default_temperature=0.7)),
    ],
)
def test_values_are_read_as_people_write_them(
    tmp_path: Path, written: dict[str, Any], read: GenerationConfig
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(written))
    assert GenerationConfig.read(tmp_path) == read
    read.sampler(events.SamplingOptions(), 100, 1)


@pytest.mark.parametrize(
    ("key", "value", "usual"),
    [
        ("temperature", math.nan, "1 is used"),
        ("temperature", -0.5, "1 is used"),
        ("temperature", 1e9, "1 is used"),
        ("temperature", "hot", "1 is used"),
        ("temperature", True, "1 is used"),
        ("temperature", [1.0], "1 is used"),
        ("top_k", 1.5, "0 is used"),
        ("top_k", -7, "0 is used"),
        ("top_k", math.inf, "0 is used"),
        ("top_p", 1.5, "1 is used"),
        ("top_p", -1, "1 is used"),
        ("do_sample", "sometimes", "true is used"),
        ("eos_token_id", "end", "token ids belong"),
        ("eos_token_id", [1, 2.5, {}, None, True], "token ids belong"),
        ("suppress_tokens", {"a": 1}, "token ids belong"),
        ("suppress_tokens", 10**400, "token ids belong"),
    ],
)
def test_a_value_that_cannot_be_meant_is_said_and_costs_no_reply(
    tmp_path: Path, key: str, value: Any, usual: str
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({key: value}))
    read = GenerationConfig.read(tmp_path)
    (notice,) = read.notices
    assert str(tmp_path / "generation_config.json") in notice
    assert key in notice
    assert usual in notice
    assert len(notice) < len(str(tmp_path)) + 200
    assert read.eos_tokens <= {1}
    read.sampler(events.SamplingOptions(), 100, 1)


def test_what_was_left_out_is_told_once_the_model_is_loaded(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair[0], tmp_path / "t"))
    (folder / "generation_config.json").write_text(json.dumps({"temperature": -1, "top_k": "many"}))
    rig = Rig(folder, None)
    first, second = only(events.Notice, rig.emitted)
    assert "temperature is -1" in first.message
    assert "top_k is many" in second.message
    assert token_ids(rig.ask(Generate(1, HELLO, max_tokens=3)))


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_file_that_is_not_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(ModelFolderError, match=r"generation_config\.json"):
        GenerationConfig.read(tmp_path)


TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")


@pytest.mark.parametrize(
    ("name", "part", "value"),
    [
        ("generation_config.json", None, [7.0]),
        ("config.json", None, 7),
        ("config.json", "text_config", [7]),
        *((name, None, "<unused7>") for name in TOKENIZER_FILES),
        *((name, None, {"__type": "AddedToken", "content": "<unused7>"}) for name in TOKENIZER_FILES),
        *((name, None, ["<eos>", {"content": "<unused7>"}]) for name in TOKENIZER_FILES),
        *((name, "ids", [1, "7.0"]) for name in TOKENIZER_FILES),
    ],
)
def test_an_end_token_counts_wherever_it_is_named(tmp_path: Path, name: str, part: str | None, value: Any) -> None:
    folder = Path(shutil.copytree(TARGET_FOLDER, tmp_path / "t"))
    path = folder / name
    values = json.loads(path.read_text()) if path.exists() else {}
    key = "eos_token" if name in TOKENIZER_FILES and part != "ids" else "eos_token_id"
    values.get(part, values)[key] = value
    path.unlink(missing_ok=True)
    path.write_text(json.dumps(values))
    ends = end_tokens(read_config(folder), GenerationConfig.read(folder), ChatFormat(folder))
    assert 7 in ends
    assert {1, 106, 50} <= ends, "Gemma's own count as well"


@pytest.mark.parametrize(("more", "bos", "own"), [({}, "<s>", "x"), ({"added_tokens_decoder": {}}, "<bos>", "y")])
def test_the_map_of_special_tokens_counts_where_transformers_reads_it(
    tmp_path: Path, more: dict[str, Any], bos: str, own: str
) -> None:
    written = {"bos_token": {"content": "<s>"}, "x_token": "x"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(written))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"x_token": "y", "bos_token": None} | more))
    found = special_tokens(read_tokenizer_config(tmp_path), read_special_tokens_map(tmp_path))
    assert (found["bos_token"], found["x_token"], found["eos_token"]) == (bos, own, "<eos>")
