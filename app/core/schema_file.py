"""A file with the JSON schema that replies match: `/schema FILE` and `run --schema FILE`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mlx_engine.protocol.errors import SlipstreamError

MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """A schema that replies can be held to."""

    name: str
    """Of the file, for people."""
    text: str
    """JSON."""


def read_schema(path: Path) -> SchemaFile:
    """Read a schema and check that replies can be held to it. Raises SlipstreamError."""
    try:
        if not path.is_file():
            raise SlipstreamError(f"{path} is not a file. Name a file that contains a JSON schema.")
        if path.stat().st_size > MAX_BYTES:
            raise SlipstreamError(f"{path} is larger than {MAX_BYTES >> 20} MiB. Use a smaller schema.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SlipstreamError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SlipstreamError(f"{path} is not valid UTF-8. Convert it first, for example with iconv.") from None
    try:
        is_object = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError) as error:
        raise SlipstreamError(f"{path} is not valid JSON: {error}.") from None
    if not is_object:
        raise SlipstreamError(
            f'{path} contains no JSON object. A schema is one, for example {{"type": "object"}}.'
        )
    # Imported here: few chats need the tokenizers and llguidance.
    from mlx_engine.text.grammar import ReplyForm, check_form

    check_form(ReplyForm(text))
    return SchemaFile(path.name, text)
