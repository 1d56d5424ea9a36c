"""Folders whose pocket tokenizer or template is changed in what concerns tools."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from models.pocket import TARGET_FOLDER

QUOTE = '<|"|>'
EMPTY_THOUGHT = "{%- if not enable_thinking -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}"


def with_empty_thought(folder: Path) -> Path:
    """The pocket target with the large models' template, which opens the model's turn with an empty thought."""
    shutil.copytree(TARGET_FOLDER, folder)
    path = folder / "chat_template.jinja"
    ends = "{%- if add_generation_prompt -%}" + EMPTY_THOUGHT + "{%- endif -%}"
    path.write_text(path.read_text().rstrip() + ends)
    return folder


def without_quote_mark(folder: Path) -> Path:
    """The pocket target, with a tokenizer that lacks one of Gemma 4's marks for tools."""
    shutil.copytree(TARGET_FOLDER, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    id = vocabulary.pop(QUOTE)
    vocabulary[f"<unused{id}>"] = id
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["id"] != id]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False))
    return folder
