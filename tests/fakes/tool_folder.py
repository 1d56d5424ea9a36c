"""The pocket tokenizer with all of Gemma 4's marks for tools, and both published ways to open a turn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from models.pocket import TARGET_FOLDER

MARKS = {46: "<|tool>", 47: "<tool|>", 52: '<|"|>'}
"""Those that the pocket model lacks."""
EMPTY_THOUGHT = "{%- if not enable_thinking -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}"


def tool_folder(folder: Path, has_empty_thought: bool = False, source: Path = TARGET_FOLDER) -> Path:
    """A copy of a folder. has_empty_thought: the template of the large models opens the model's turn with one."""
    shutil.copytree(source, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    for id, spelling in MARKS.items():
        del vocab[f"<unused{id}>"]
        vocab[spelling] = id
        like = next(token for token in tokenizer["added_tokens"] if token["id"] == 48)
        tokenizer["added_tokens"].append(like | {"id": id, "content": spelling})
    tokenizer["added_tokens"].sort(key=lambda token: token["id"])
    tokenizer["model"]["vocab"] = dict(sorted(vocab.items(), key=lambda item: item[1]))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    if has_empty_thought:
        path = folder / "chat_template.jinja"
        ends = "{%- if add_generation_prompt -%}" + EMPTY_THOUGHT + "{%- endif -%}"
        path.write_text(path.read_text().rstrip() + ends)
    return folder
