"""Every embedding table has a row for each id that can reach it, or the folder is refused before it is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_engine.loading.pair import load_pair
from mlx_engine.network.target import Gemma4Target, load_target
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import Generate, Load, Message, Ready, SamplingOptions
from models.config import check_match, read_config
from models.verify import verify_folder
from tests.fakes import tiny
from tests.fakes.folders import VOCAB, write_pair
from tests.mlx_engine.helpers import load_tensors
from tests.mlx_engine.rig import Rig, only, token_ids

pytestmark = pytest.mark.sampled(2)

HELLO = (Message("user", "Hello there, how are you?"),)
ORDERING = "masked_embedding.token_ordering"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def pair(written: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    target, assistant = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in written)
    return target, assistant


@pytest.fixture
def never_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def computed(*arguments: object) -> None:
        raise AssertionError("the target was computed")

    for method in ("forward", "read", "embed"):
        monkeypatch.setattr(Gemma4Target, method, computed)


def edit(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "config.json") -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def resize(folder: Path, rows: int, *tables: str) -> None:
    """Cut tables to `rows`, or append rows of zeros."""
    weights = load_tensors(folder / "model.safetensors")
    for name in list(weights):
        if name.removesuffix(".weight").endswith(tables):
            more = mx.zeros((max(0, rows - len(weights[name])), weights[name].shape[1]))
            weights[name] = mx.concatenate([weights[name][:rows], more])
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)


def refusal(target: Path, drafter: Path | None = None) -> str:
    """Why the pair cannot be loaded, or its drafter is left out."""
    try:
        loaded = load_pair(Load(str(target), (str(drafter),) if drafter else ()), lambda what: None)
    except ModelFolderError as error:
        return str(error)
    (reason,) = loaded.refusals
    return reason


@pytest.mark.usefixtures("never_computed")
def test_a_per_layer_table_that_is_too_small_is_refused(pair: tuple[Path, Path]) -> None:
    resize(pair[0], VOCAB - 1, "embed_tokens_per_layer")
    edit(pair[0], lambda config: config["text_config"].update(vocab_size_per_layer_input=VOCAB - 1))
    assert f"vocab_size_per_layer_input is {VOCAB - 1}, but the vocabulary has {VOCAB}" in refusal(pair[0])
    (finding,) = verify_folder(pair[0], {})
    assert "needs a row in both tables" in finding.problem


def test_a_per_layer_table_may_be_larger_or_unsaid(pair: tuple[Path, Path]) -> None:
    edit(pair[0], lambda config: config["text_config"].update(vocab_size_per_layer_input=None))
    load_target(pair[0])
    resize(pair[0], VOCAB + 1, "embed_tokens_per_layer")
    edit(pair[0], lambda config: config["text_config"].update(vocab_size_per_layer_input=VOCAB + 1))
    load_target(pair[0])


@pytest.mark.usefixtures("never_computed")
@pytest.mark.parametrize("tables", [("embed_tokens",), ("embed_tokens", "embed_tokens_per_layer")])
def test_tables_smaller_than_the_tokenizer_are_refused(pair: tuple[Path, Path], tables: tuple[str, ...]) -> None:
    resize(pair[0], VOCAB - 1, *tables)
    for key in ("vocab_size", "vocab_size_per_layer_input")[: len(tables)]:
        edit(pair[0], lambda config, key=key: config["text_config"].update({key: VOCAB - 1}))  # type: ignore[misc]
    assert f"its tokenizer has {VOCAB} tokens, its weights {VOCAB - 1}" in refusal(pair[0])
    (finding,) = verify_folder(pair[0], {})
    assert f"its tokenizer has {VOCAB} tokens, its weights {VOCAB - 1}" in finding.problem


@pytest.mark.usefixtures("never_computed")
@pytest.mark.parametrize("is_special", [True, False])
def test_an_added_token_needs_a_row(pair: tuple[Path, Path], is_special: bool) -> None:
    added = {"content": "<|extra|>", "special": is_special, "normalized": False}
    added |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    edit(pair[0], lambda value: value["added_tokens"].append(added | {"id": VOCAB}), "tokenizer.json")
    assert f"its tokenizer has {VOCAB + 1} tokens, its weights {VOCAB}" in refusal(pair[0])
    (finding,) = verify_folder(pair[0], {})
    assert f"its tokenizer has {VOCAB + 1} tokens" in finding.problem


@pytest.mark.usefixtures("never_computed")
def test_an_untied_head_of_another_size_is_refused(pair: tuple[Path, Path]) -> None:
    edit(pair[0], lambda config: config["text_config"].update(tie_word_embeddings=False))
    weights = load_tensors(pair[0] / "model.safetensors")
    mx.eval(weights)
    head = mx.zeros((VOCAB + 1, tiny.COMMON["hidden_size"]))
    mx.save_safetensors(str(pair[0] / "model.safetensors"), weights | {"language_model.lm_head.weight": head})
    assert "lm_head.weight' has shape (2049, 32), but config.json says (2048, 32)" in refusal(pair[0])


@pytest.mark.usefixtures("never_computed")
def test_a_draft_model_without_rows_for_all_of_the_targets_ids_is_refused(pair: tuple[Path, Path]) -> None:
    draft = Path(shutil.copytree(pair[0], pair[0].with_name("draft")))
    resize(pair[0], VOCAB + 1, "embed_tokens", "embed_tokens_per_layer")
    for key in ("vocab_size", "vocab_size_per_layer_input"):
        edit(pair[0], lambda config, key=key: config["text_config"].update({key: VOCAB + 1}))  # type: ignore[misc]
    assert f"a vocabulary of {VOCAB}; {pair[0]} has {VOCAB + 1}" in refusal(pair[0], pair[1])
    assert f"its tables have {VOCAB} rows, those of {pair[0]} {VOCAB + 1}" in refusal(pair[0], draft)


@pytest.mark.usefixtures("never_computed")
@pytest.mark.parametrize("by", [1, -1])
def test_centroids_that_do_not_fit_the_vocabulary_are_refused(pair: tuple[Path, Path], by: int) -> None:
    edit(pair[1], lambda config: config.update(num_centroids=64 + by))
    assert "num_centroids" in refusal(*pair)
    edit(pair[1], lambda config: config.update(num_centroids=32))
    assert "masked_embedding.centroids.weight' has shape" in refusal(*pair)


def pad_assistant(folder: Path, is_ordered: bool) -> None:
    """One more row than the target has, which is in the last cluster."""
    resize(folder, VOCAB + 1, "embed_tokens")
    edit(folder, lambda config: config["text_config"].update(vocab_size=VOCAB + 1))
    edit(folder, lambda config: config.update(use_ordered_embeddings=is_ordered, num_centroids=683))
    weights = load_tensors(folder / "model.safetensors")
    weights[ORDERING] = mx.concatenate([weights[ORDERING].astype(mx.int64), mx.array([VOCAB], dtype=mx.int64)])
    weights["masked_embedding.centroids.weight"] = mx.random.normal((683, 16), key=mx.random.key(1))
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("sampling", [SamplingOptions(temperature=0), SamplingOptions(temperature=1, seed=5)])
def test_an_assistant_with_a_padded_vocabulary_drafts(
    pair: tuple[Path, Path], is_ordered: bool, sampling: SamplingOptions
) -> None:
    pad_assistant(pair[1], is_ordered)
    check_match(read_config(pair[0]), read_config(pair[1]), ("d", "t"), "")
    rig = Rig(*pair)
    (ready,) = only(Ready, rig.emitted)
    assert (ready.drafter, ready.refusal) == ("target-assistant", None)
    replies = [
        token_ids(rig.ask(Generate(1, HELLO, sampling, draft_length=length, max_tokens=30))) for length in (0, 4)
    ]
    assert len(replies[1]) > 10
    assert sampling.temperature or replies[0] == replies[1]


@pytest.mark.parametrize("rows", [0, 1])
def test_a_draft_model_with_a_padded_vocabulary_drafts(pair: tuple[Path, Path], rows: int) -> None:
    draft = Path(shutil.copytree(pair[0], pair[0].with_name("draft")))
    resize(draft, VOCAB + rows, "embed_tokens", "embed_tokens_per_layer")
    for key in ("vocab_size", "vocab_size_per_layer_input"):
        edit(draft, lambda config, key=key: config["text_config"].update({key: VOCAB + rows}))  # type: ignore[misc]
    rig = Rig(pair[0], draft)
    (ready,) = only(Ready, rig.emitted)
    assert (ready.drafter, ready.refusal) == ("draft", None)
    plain, drafted = (
        token_ids(rig.ask(Generate(1, HELLO, draft_length=length, max_tokens=30))) for length in (0, 4)
    )
    assert plain == drafted


@pytest.mark.parametrize("layout", ["e2b", "31b"])
def test_rows_of_padding_are_never_drafted(layout: str) -> None:
    network = tiny.assistant(layout)
    hidden = mx.random.normal((1, 7, 16), key=mx.random.key(0))
    tokens = network.argmax(hidden)
    network.vocab_size = limit = tiny.VOCAB * 2 // 3
    limited = network.logits(hidden)
    assert limited.shape == (1, 7, limit)
    assert mx.any(tokens >= limit).item()
    assert network.argmax(hidden).tolist() == mx.argmax(limited, axis=-1).tolist()


def test_where_only_padding_is_selected_a_token_of_the_target_is_drafted() -> None:
    network = tiny.assistant("e2b")
    network.masked_embedding.token_ordering = mx.full((tiny.VOCAB,), tiny.VOCAB - 1, dtype=mx.int32)
    network.vocab_size = tiny.VOCAB - 1
    hidden = mx.random.normal((1, 3, 16), key=mx.random.key(0))
    assert mx.all(network.argmax(hidden) < tiny.VOCAB - 1).item()
    assert mx.all(mx.isfinite(network.logits(hidden))).item()
