"""What a folder's generation_config.json asks for is done; a file of another form is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.protocol import events
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import Generate, Message
from mlx_engine.text.reply_text import TextStream
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


@pytest.mark.parametrize(
    "settings", [{"temperature": "hot"}, {"eos_token_id": "end"}, {"suppress_tokens": 3}, {"top_k": None}]
)
def test_a_generation_config_of_another_form(
    pair: tuple[Path, Path], tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(pair[0], tmp_path / "t"))
    (folder / "generation_config.json").write_text(json.dumps(settings))
    if settings == {"top_k": None}:
        Rig(folder, None)
    else:
        with pytest.raises(ModelFolderError, match=r"generation_config\.json"):
            Rig(folder, None)
