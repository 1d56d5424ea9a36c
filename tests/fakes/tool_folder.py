"""The pocket tokenizer and template, with both published ways to open a turn."""

from __future__ import annotations

import shutil
from pathlib import Path

from models.pocket import TARGET_FOLDER

EMPTY_THOUGHT = "{%- if not enable_thinking -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}"


def tool_folder(folder: Path, has_empty_thought: bool = False, source: Path = TARGET_FOLDER) -> Path:
    """A copy of a folder. has_empty_thought: the template of the large models opens the model's turn with one."""
    shutil.copytree(source, folder)
    if has_empty_thought:
        path = folder / "chat_template.jinja"
        ends = "{%- if add_generation_prompt -%}" + EMPTY_THOUGHT + "{%- endif -%}"
        path.write_text(path.read_text().rstrip() + ends)
    return folder
