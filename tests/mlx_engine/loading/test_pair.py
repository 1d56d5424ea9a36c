"""Which drafters a target gets: assistants, smaller models, lookup; quantized or not; and which are refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_engine.loading.pair import LoadedPair, load_pair
from mlx_engine.network.assistant import Assistant, AssistantConfig, load_assistant
from mlx_engine.network.checkpoint import quantize
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import LOOKUP, Generate, Load, Message, Notice, Ready
from mlx_engine.speculation.assistant_drafter import AssistantDrafter
from mlx_engine.speculation.drafter import Drafter
from mlx_engine.speculation.lookup import LookupDrafter
from mlx_engine.speculation.model_drafter import ModelDrafter
from models import pocket
from tests.fakes.folders import write_pair
from tests.mlx_engine.rig import Rig, only, token_ids
from tests.paths import GOLDEN

pytestmark = [pytest.mark.slow, pytest.mark.sampled(2)]

HELLO = (Message("user", "Hello there, how are you?"),)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(tmp_path_factory.mktemp("other"), seed=8)[0]


def load(target: Path, drafter: Path | str | None, bits: int | None = None) -> LoadedPair:
    return load_pair(Load(str(target), (str(drafter),) if drafter else (), bits), lambda what: None)


def test_the_folder_says_which_kind_it_is(pair: tuple[Path, Path], other: Path) -> None:
    assert isinstance(drafter_of(load(*pair)), AssistantDrafter)
    assert isinstance(drafter_of(load(pair[0], other)), ModelDrafter)
    assert isinstance(drafter_of(load(pair[0], LOOKUP)), LookupDrafter)
    assert not load(pair[0], None).drafters


def drafter_of(pair: LoadedPair) -> Drafter:
    (drafter,) = pair.drafters.values()
    return drafter


def test_several_drafters_of_different_kinds_are_loaded(pair: tuple[Path, Path], other: Path) -> None:
    names = tuple(map(str, (pair[1], LOOKUP, other, pair[0])))
    loaded = load_pair(Load(str(pair[0]), names), lambda what: None)
    assert [drafter.name for drafter in loaded.drafters.values()] == ["assistant", "lookup", "model"]
    (refusal,) = loaded.refusals
    assert "only one drafter of the kind model" in refusal


@pytest.mark.parametrize("kind", ["assistant", "model", "itself", "lookup"])
def test_every_kind_leaves_the_words_alone(pair: tuple[Path, Path], other: Path, kind: str) -> None:
    drafters: dict[str, Path | str] = {"assistant": pair[1], "model": other, "itself": pair[0], "lookup": LOOKUP}
    drafter = drafters[kind]
    rig = Rig(pair[0], drafter)
    (ready,) = only(Ready, rig.emitted)
    assert ready.drafter == Path(drafter).name
    replies = {
        tuple(token_ids(rig.ask(Generate(1, HELLO, draft_length=k, max_tokens=60)))) for k in (0, 3, "auto")
    }
    assert len(replies) == 1


def test_a_draft_model_of_another_tokenizer_is_refused(
    pair: tuple[Path, Path], other: Path, tmp_path: Path
) -> None:
    renamed = Path(shutil.copytree(other, tmp_path / "renamed"))
    tokenizer = json.loads((renamed / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    one, two = [token for token in vocab if len(token) == 1 and token.isalpha()][:2]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    (renamed / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "another tokenizer" in refusal(pair[0], renamed)


def test_an_assistant_of_another_target_is_refused_with_both_numbers(pair: tuple[Path, Path]) -> None:
    assert re.search(r"a vocabulary of 320; .* has 2048", refusal(pair[0], GOLDEN / "31b" / "assistant"))


def test_a_folder_that_is_neither_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelFolderError):
        load(tmp_path, None)
    assert "is a 'llama' model, and no drafter" in refusal(pair[0], tmp_path)


def refusal(target: Path, drafter: Path) -> str:
    """Why a drafter is left out."""
    loaded = load(target, drafter)
    assert not loaded.drafters
    (reason,) = loaded.refusals
    return reason


def change_weights(folder: Path, change: Callable[[str, mx.array], mx.array]) -> None:
    file = folder / "model.safetensors"
    weights: dict[str, mx.array] = mx.load(str(file))  # type: ignore[assignment]
    mx.save_safetensors(str(file), {name: change(name, array) for name, array in weights.items()})


def make_again(folder: Path, name: str, value: int) -> None:
    """The same assistant for another target."""
    config = json.loads((folder / "config.json").read_text())
    (config if name in config else config["text_config"])[name] = value
    (folder / "config.json").write_text(json.dumps(config))
    network = Assistant(AssistantConfig.from_dict(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(network.parameters())))


def not_a_number(name: str, array: mx.array) -> mx.array:
    return array * mx.nan if name.endswith("norm.weight") else array


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such folder": (shutil.rmtree, "not a folder"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "safetensors"),
    "cut": (lambda folder: os.truncate(folder / "model.safetensors", 999), "model.safetensors"),
    "empty": (lambda folder: os.truncate(folder / "model.safetensors", 0), "model.safetensors"),
    "config cut": (lambda folder: os.truncate(folder / "config.json", 9), "config.json"),
    "other width": (lambda folder: make_again(folder, "backbone_hidden_size", 96), "a hidden size of 96; "),
    "other shapes": (lambda folder: change_weights(folder, lambda name, array: array[:1]), "shape"),
    "no numbers": (lambda folder: change_weights(folder, not_a_number), "no usable numbers"),
    "head size": (lambda folder: make_again(folder, "global_head_dim", 8), "full_attention head size of 8"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_replies_go_on_without_a_drafter_that_is_of_no_use(
    pair: tuple[Path, Path], tmp_path: Path, fault: str
) -> None:
    drafter = Path(shutil.copytree(pair[1], tmp_path / "drafter"))
    breaking, words = REFUSED[fault]
    breaking(drafter)
    rig = Rig(pair[0], drafter)
    (ready,) = only(Ready, rig.emitted)
    assert (ready.target, ready.drafter) == ("target", None)
    assert words in str(ready.refusal)
    assert str(drafter) in str(ready.refusal)
    assert not only(Notice, rig.emitted), "it is said once"
    asked = Generate(1, HELLO, draft_length=4, max_tokens=6)
    assert token_ids(rig.ask(asked)) == token_ids(Rig(pair[0], None).ask(asked))
    assert not only(Notice, rig.emitted)


def test_a_drafter_that_was_refused_before_is_said_by_the_engine(pair: tuple[Path, Path]) -> None:
    (ready,) = only(Ready, Rig(pair[0], None, refusal="It is of another variant.").emitted)
    assert (ready.drafter, ready.refusal) == (None, "It is of another variant.")


def test_a_drafter_whose_network_raises_is_left_out(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object) -> None:
        raise ValueError("[matmul] no such shapes")

    for kind, method in ((Assistant, "__call__"), (AssistantDrafter, "prefill")):
        with monkeypatch.context() as broken:
            broken.setattr(kind, method, failing)
            (ready,) = only(Ready, Rig(*pair).emitted)
        assert "cannot be run ([matmul] no such shapes)" in str(ready.refusal)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_drafter_keeps_its_centroid_head_and_changes_no_word(bits: int) -> None:
    assistant = load_assistant(pocket.DRAFTER_FOLDER, bits)
    names = {name for name, _ in tree_flatten(assistant.parameters())}
    quantized = {name.removesuffix(".scales") for name in names if name.endswith(".scales")}
    assert "pre_projection" in quantized
    assert "model.layers.0.mlp.gate_proj" in quantized
    assert not any(name.startswith(("masked_embedding", "model.embed_tokens")) for name in quantized)
    message = (Message("user", "How do I turn drafting off?"),)
    plain = Rig(pocket.TARGET_FOLDER, None).ask(Generate(1, message))
    rig = Rig(pocket.TARGET_FOLDER, pocket.DRAFTER_FOLDER, drafter_bits=bits)
    assert token_ids(rig.ask(Generate(1, message, draft_length=4))) == token_ids(plain)


def test_the_head_of_a_large_drafter_is_quantized_with_the_rest() -> None:
    whole = load_assistant(GOLDEN / "31b" / "assistant")
    whole.model.embed_tokens.weight = mx.random.normal((whole.config.text.vocab_size, 64))
    quantize(whole, 4)
    quantized = {name for name, _ in tree_flatten(whole.parameters()) if name.endswith(".scales")}
    assert "model.embed_tokens.scales" in quantized


def test_a_context_too_small_for_the_template_is_refused_in_words(tmp_path: Path) -> None:
    target, _ = write_pair(tmp_path, context_tokens=6)
    with pytest.raises(ModelFolderError, match=r"context of 6 tokens.*template"):
        Rig(target, None)
