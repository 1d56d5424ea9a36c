"""A notice about a model is shown once, not at every start."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlx_engine.loading.told import KEPT, TOLD_FILE, is_news
from mlx_engine.protocol import events
from tests.fakes.folders import write_pair
from tests.mlx_engine.rig import Rig, only


def test_a_sentence_is_news_once(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert is_news(folder, "one")
    assert not is_news(folder, "one")
    assert is_news(folder, "two")
    assert not is_news(folder, "one")


def test_without_a_folder_everything_is_news() -> None:
    assert is_news(None, "one")
    assert is_news(None, "one")


def test_the_file_stays_small(tmp_path: Path) -> None:
    for number in range(KEPT + 20):
        assert is_news(tmp_path, str(number))
    assert len((tmp_path / TOLD_FILE).read_text().split()) == KEPT + 1


def test_what_is_no_file_is_neither_waited_for_nor_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / TOLD_FILE)
    assert is_news(tmp_path, "one")
    shutil.rmtree(tmp_path)
    tmp_path.write_text("a file where the folder should be")
    assert is_news(tmp_path, "one")


@pytest.mark.slow
def test_an_old_template_is_told_once(tmp_path: Path) -> None:
    target, _ = write_pair(tmp_path / "pair")
    path = target / "chat_template.jinja"
    answer = "{{- strip_thinking(message['content']) -}}"
    path.write_text(path.read_text().replace(answer, "{{- '<|channel>thought\\n<channel|>' -}}" + answer))
    first, second = (only(events.Notice, Rig(target, None, estimates_folder=str(tmp_path / "s")).emitted)
                     for _ in range(2))  # fmt: skip
    (notice,) = first
    assert "before July 2026" in notice.message
    assert "an empty thought" in notice.message
    assert "Pull the model again" in notice.message
    assert second == []
