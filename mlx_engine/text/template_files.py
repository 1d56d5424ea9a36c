"""Which chat template a folder has, chosen from its files as transformers chooses for a chat without tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_engine.files.folder_files import is_there, read_json, read_text
from mlx_engine.protocol.errors import ModelFolderError

TEMPLATE_FILE = "chat_template.jinja"
MORE_TEMPLATES_FOLDER = "additional_chat_templates"
PROCESSOR_FILE = "chat_template.json"
DEFAULT = "default"


def read_template(folder: Path, tokenizer_config: dict[str, Any]) -> str:
    """The default template. Raises ModelFolderError, which names the others if there is no default."""
    more = folder / MORE_TEMPLATES_FOLDER
    if is_there(folder / TEMPLATE_FILE):
        return read_text(folder / TEMPLATE_FILE)
    if is_there(more / f"{DEFAULT}.jinja") and not more.is_symlink():
        return read_text(more / f"{DEFAULT}.jinja")
    named = _named(tokenizer_config.get("chat_template"))
    if not named and is_there(folder / PROCESSOR_FILE):
        named = _named(read_json(folder / PROCESSOR_FILE).get("chat_template"))
    if DEFAULT in named:
        return named[DEFAULT]
    others = sorted({*named, *(path.stem for path in more.glob("*.jinja"))})
    if others:
        raise ModelFolderError(
            f"{folder} has chat templates, but none is named {DEFAULT}: {', '.join(others)[:200]}. "
            f"Write the one for a plain chat to {TEMPLATE_FILE}."
        )
    raise ModelFolderError(
        f"{folder} has no chat template ({TEMPLATE_FILE}, or chat_template in tokenizer_config.json). "
        "Use an instruction-tuned checkpoint (its name ends in -it)."
    )


def _named(value: Any) -> dict[str, str]:
    """Name -> template, from one template, a list of templates with names, or an object with them by name."""
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, list):
        entries = [entry for entry in value if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        value = {entry["name"]: entry.get("template") for entry in entries}
    if not isinstance(value, dict):
        return {}
    return {name: template for name, template in value.items() if isinstance(template, str)}
