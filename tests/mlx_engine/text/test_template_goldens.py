"""Chat templates give what transformers gives: the goldens are made by tests/golden/make_template_goldens.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.text.chat_template import ChatTemplate
from mlx_engine.text.sandbox import TemplateFailedError
from mlx_engine.text.template_files import read_template
from mlx_engine.text.tokenizer import read_special_tokens_map, read_tokenizer_config, special_tokens
from models.pocket import TARGET_FOLDER
from tests.golden.make_template_goldens import GOLDENS, write_files

GOLDEN: dict[str, Any] = json.loads(GOLDENS.read_text())


def rendered(folder: Path, source: str | None = None) -> str | None:
    """The text of the conversation; None if it is refused."""
    try:
        config = read_tokenizer_config(folder)
        template = ChatTemplate(read_template(folder, config) if source is None else source)
        tokens = special_tokens(config, read_special_tokens_map(folder))
        return template.render(GOLDEN["talk"], None, add_generation_prompt=False, **tokens)
    except (TemplateFailedError, ModelFolderError):
        return None


@pytest.mark.parametrize("case", GOLDEN["templates"], ids=lambda case: case["template"][:60])
def test_a_template_renders_as_in_transformers(case: dict[str, str | None]) -> None:
    assert rendered(TARGET_FOLDER, case["template"]) == case["text"]


@pytest.mark.parametrize("case", GOLDEN["folders"], ids=lambda case: ",".join(case["files"])[:60])
def test_a_folders_template_is_the_one_that_transformers_takes(case: dict[str, Any], tmp_path: Path) -> None:
    shutil.copy(TARGET_FOLDER / "tokenizer.json", tmp_path)
    write_files(tmp_path, case["files"])
    assert rendered(tmp_path) == case["text"]
