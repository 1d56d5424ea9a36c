"""`--drafter-vocabulary`: a large assistant drafts fewer tokens, and people are told where it does nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_engine.loading.on_device import estimates_path, vocabulary_notice
from mlx_engine.loading.pair import LoadedPair, load_pair
from mlx_engine.protocol.events import Generate, Load, Message, Notice, Ready
from models.memory_fit import size_of_folders
from models.pocket import TARGET_FOLDER
from tests.fakes import tiny
from tests.fakes.folders import VOCAB, write_pair
from tests.mlx_engine.rig import Rig, only, token_ids

pytestmark = pytest.mark.slow

FEW = 256
LARGE = tiny.text_config("31b") | {"vocab_size": VOCAB, "vocab_size_per_layer_input": VOCAB}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("large"), sizes=LARGE, has_centroids=False)


def load(folders: tuple[Path, Path], vocabulary: int | None) -> LoadedPair:
    target, drafter = map(str, folders)
    return load_pair(Load(target, (drafter,), drafter_vocabulary=vocabulary), lambda loading: None)


def test_it_is_told_and_replies_stay_the_same(folders: tuple[Path, Path]) -> None:
    request = Generate(1, (Message("user", "Hi"),), draft_length=4, max_tokens=40)
    replies = []
    for vocabulary, told in ((None, None), (FEW, FEW), (0, None), (VOCAB, None)):
        rig = Rig(*folders, drafter_vocabulary=vocabulary)
        (ready,) = only(Ready, rig.emitted)
        assert ready.drafter_vocabulary == told
        notices = [notice.message for notice in only(Notice, rig.emitted)]
        assert any("--drafter-vocabulary does nothing" in notice for notice in notices) == (vocabulary == VOCAB)
        replies.append(token_ids(rig.ask(request)))
    assert replies == [replies[0]] * 4
    assert len(replies[0]) == 40


def test_a_centroid_head_is_left_as_it_is(tmp_path: Path) -> None:
    folders = write_pair(tmp_path)
    pair = load(folders, FEW)
    assert pair.drafter_vocabulary is None
    assert "E2B" not in str(vocabulary_notice(Load(str(folders[0]), (str(folders[1]),)), pair)), "nobody asked"
    asked = Load(str(folders[0]), (str(folders[1]),), drafter_vocabulary=FEW)
    assert "--drafter-vocabulary does nothing for target" in str(vocabulary_notice(asked, pair))


def test_its_rows_are_counted(folders: tuple[Path, Path]) -> None:
    sizes_bytes = []
    for vocabulary in (None, VOCAB // 2):
        mx.clear_cache()
        before_bytes = mx.get_active_memory()
        pair = load(folders, vocabulary)
        sizes_bytes.append(mx.get_active_memory() - before_bytes)
        del pair
    whole, few = (
        size_of_folders(*folders, drafter_vocabulary=vocabulary).drafter_bytes or 0
        for vocabulary in (None, VOCAB // 2)
    )
    assert few > whole + 60_000
    assert sizes_bytes[1] - sizes_bytes[0] == pytest.approx(few - whole, abs=10_000)


@pytest.mark.parametrize("prefix", ["", "language_model.model."])
def test_its_rows_are_counted_under_any_prefix(folders: tuple[Path, Path], tmp_path: Path, prefix: str) -> None:
    target, drafter = folders
    renamed = shutil.copytree(drafter, tmp_path / "renamed")
    weights: dict[str, mx.array] = mx.load(str(drafter / "model.safetensors"))  # type: ignore[assignment]
    changed = {prefix + name.removeprefix("model."): array for name, array in weights.items()}
    mx.save_safetensors(str(renamed / "model.safetensors"), changed, metadata={"format": "pt"})
    few = [size_of_folders(target, folder, drafter_vocabulary=FEW).drafter_bytes for folder in (drafter, renamed)]
    assert few[0] == few[1]


def test_the_ends_of_a_reply_can_be_drafted(folders: tuple[Path, Path]) -> None:
    """Those that the folder's files name as well."""
    format = load(folders, None).format
    kept = format.frequent_tokens(FEW, {VOCAB - 1})
    assert {*format.stop_tokens, VOCAB - 1} <= {*kept}
    assert len(kept) == FEW


def test_what_is_learned_is_kept_apart(folders: tuple[Path, Path], tmp_path: Path) -> None:
    paths = set()
    for vocabulary in (None, FEW, 2 * FEW):
        asked = Load(str(TARGET_FOLDER), ("a",), drafter_vocabulary=vocabulary, estimates_folder=str(tmp_path))
        paths.add(estimates_path(asked, load(folders, vocabulary)))
    assert len(paths) == 3
