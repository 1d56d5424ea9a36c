"""A quantized copy loads, keeps what must stay exact, and says what it was made from."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model

from mlx_engine.files.weight_files import read_tensors
from mlx_engine.loading.convert import convert
from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.target import load_target
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import Message
from mlx_engine.text.prompt import ChatFormat
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.fakes.cache import COMMIT, put
from tests.fakes.folders import write_pair
from tests.mlx_engine.helpers import load_tensors
from tests.paths import GOLDEN

LAYOUTS = ["e2b", "e4b", "12b-unified", "26b-a4b", "31b"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


def test_a_target_is_smaller_and_says_nearly_the_same(pair: tuple[Path, Path], tmp_path: Path) -> None:
    record = convert(pair[0], tmp_path / "copy", bits=8, group_size=32)
    assert record["weights_bytes_after"] < 0.7 * record["weights_bytes_before"]
    exact, copy = load_target(pair[0]), load_target(tmp_path / "copy")
    assert copy.dtype_name == "8-bit"
    tokens = mx.array([list(range(5, 45))])
    scores = [target.logits(target.forward(tokens, target.new_cache())) for target in (exact, copy)]
    # A loud random network of 2048 tokens; by chance they would agree once in 2048.
    assert np.mean(np.array(mx.argmax(scores[0], -1) == mx.argmax(scores[1], -1))) > 0.4
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (pair[0] / name).read_bytes()


def test_a_centroid_drafter_keeps_its_head_and_its_table(tmp_path: Path) -> None:
    convert(DRAFTER_FOLDER, tmp_path / "copy", bits=4, group_size=32)
    tensors = read_tensors(tmp_path / "copy")
    quantized = {name.removesuffix(".scales") for name in tensors if name.endswith(".scales")}
    assert "pre_projection" in quantized
    assert not any(name.startswith(("masked_embedding", "model.embed_tokens")) for name in quantized)
    exact, copy = load_assistant(DRAFTER_FOLDER), load_assistant(tmp_path / "copy")
    for kept in (
        "masked_embedding.centroids.weight",
        "masked_embedding.token_ordering",
        "model.embed_tokens.weight",
    ):
        assert mx.array_equal(_tensor(exact, kept), _tensor(copy, kept))


def _tensor(module: object, path: str) -> mx.array:
    for name in path.split("."):
        module = getattr(module, name)
    assert isinstance(module, mx.array)
    return module


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_converts_and_loads(layout: str, tmp_path: Path) -> None:
    """The toys are too narrow for most of it to be quantized; what matters is that nothing is lost."""
    convert(GOLDEN / layout / "target", tmp_path / "target", group_size=32)
    convert(GOLDEN / layout / "assistant", tmp_path / "assistant", group_size=32)
    assert load_target(tmp_path / "target").facts == load_target(GOLDEN / layout / "target").facts
    load_assistant(tmp_path / "assistant")


def test_a_copy_of_a_text_only_export_loads_here_and_in_mlx_lm(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source = Path(shutil.copytree(pair[0], tmp_path / "source"))
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config["text_config"] | {"model_type": "gemma4_text"}))
    weights = load_tensors(source / "model.safetensors")
    mx.eval(weights)
    named = {name.replace("model.language_model.", "model."): array for name, array in weights.items()}
    mx.save_safetensors(str(source / "model.safetensors"), named)
    convert(source, tmp_path / "copy", bits=8, group_size=32)
    target, tokens = load_target(tmp_path / "copy"), mx.array([list(range(5, 45))])
    network, _ = load_model(tmp_path / "copy")
    assert mx.allclose(target.logits(target.forward(tokens, target.new_cache())), network(tokens)[0], atol=1e-4)


def test_the_record_names_source_settings_and_every_file(pair: tuple[Path, Path], tmp_path: Path) -> None:
    snapshot = put(tmp_path / "cache", "me/mine", pair[1])
    convert(snapshot, tmp_path / "copy", bits=8, group_size=64)
    record = json.loads((tmp_path / "copy" / "conversion.json").read_text())
    assert (record["source"], record["source_commit"]) == ("me/mine", COMMIT)
    assert record["quantization"] == {"bits": 8, "group_size": 64, "mode": "affine"}
    assert record["files"].keys() == {path.name for path in (tmp_path / "copy").iterdir()} - {"conversion.json"}
    for name, facts in record["files"].items():
        data = (tmp_path / "copy" / name).read_bytes()
        assert facts == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_what_cannot_be_converted_leaves_no_copy(pair: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with pytest.raises(ModelFolderError, match="not possible"):
        convert(pair[0], copy, bits=7)
    llama = tmp_path / "llama"
    llama.mkdir()
    (llama / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelFolderError, match="'llama'"):
        convert(llama, copy)
    broken = Path(shutil.copytree(pair[0], tmp_path / "broken"))
    config = json.loads((broken / "config.json").read_text())
    config["text_config"]["hidden_size"] = 64
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match="does not contain the model"):
        convert(broken, copy)
    convert(pair[1], copy, group_size=32)
    with pytest.raises(ModelFolderError, match="exists already"):
        convert(pair[1], copy)
    with pytest.raises(ModelFolderError, match="quantized already"):
        convert(copy, tmp_path / "again")
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "llama", "broken"}


def test_a_full_disk_leaves_no_copy(pair: tuple[Path, Path], tmp_path: Path) -> None:
    code = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"sys.argv = ['convert', {str(pair[0])!r}, {str(tmp_path / 'copy')!r}, '--group-size', '32']\n"
        "runpy.run_module('mlx_engine.loading.convert', run_name='__main__')"
    )
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "could not be written" in json.loads(run.stdout.splitlines()[-1])["error"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_pocket_pair_still_works_together_in_8_bits(tmp_path: Path) -> None:
    convert(TARGET_FOLDER, tmp_path / "target", bits=8, group_size=32)
    convert(DRAFTER_FOLDER, tmp_path / "target-assistant", bits=8, group_size=32)
    command = [
        sys.executable,
        "-m",
        "app.cli",
        "run",
        "--json",
        "--draft",
        "4",
        "--temp",
        "0",
        "--model",
        str(tmp_path / "target"),
    ]
    run = subprocess.run([*command, "How do I turn drafting off?"], capture_output=True, check=True)
    reply = json.loads(run.stdout)
    assert "ctrl+t" in reply["text"]
    assert reply["stats"]["acceptance"] > 0.5
    assert reply["model"]["drafter"] == "target-assistant"


def test_the_template_comes_along_wherever_it_is(tmp_path: Path) -> None:
    source = Path(shutil.copytree(TARGET_FOLDER, tmp_path / "source"))
    template = (source / "chat_template.jinja").read_text()
    (source / "additional_chat_templates").mkdir()
    (source / "chat_template.jinja").rename(source / "additional_chat_templates" / "default.jinja")
    convert(source, tmp_path / "copy", bits=8, group_size=32)
    assert (tmp_path / "copy" / "chat_template.jinja").read_text() == template
    assert ChatFormat(tmp_path / "copy").render([Message("user", "Hi")]).ids


def test_settings_left_over_from_a_quantization_do_not_come_along(tmp_path: Path) -> None:
    source = Path(shutil.copytree(TARGET_FOLDER, tmp_path / "source"))
    config = json.loads((source / "config.json").read_text())
    left_over = {"bits": 4, "group_size": 64, "language_model.model.layers.0.mlp.up_proj": {"bits": 3}}
    (source / "config.json").unlink()
    written = config | {"quantization": left_over, "quantization_config": {"quant_method": "gptq"}}
    (source / "config.json").write_text(json.dumps(written))
    convert(source, tmp_path / "copy", bits=8, group_size=32)
    made = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert made["quantization"]["bits"] == 8
    assert "language_model.model.layers.0.mlp.up_proj" not in made["quantization"]
    assert load_model(tmp_path / "copy")
    assert load_target(tmp_path / "copy").dtype_name == "8-bit"
