"""The prompts to measure: built-in ones, a person's own file, or those of stored chats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from app.store.chat_store import ChatStore
from app.store.records import StoredMessage
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Message

Kind = Literal["chat", "code", "prose", "enumeration", "json", "rewriting", "own", "stored"]
"""own: from a person's file; stored: from their chats."""
BUNDLED_KINDS: tuple[Kind, ...] = ("chat", "code", "prose", "enumeration", "json", "rewriting")
DATA_FOLDER = Path(__file__).with_name("data")
MOST_BYTES = 1 << 20
MOST_PROMPTS = 200
STORED_PROMPTS = 12
"""The latest prompts of stored chats: enough for an interval, few enough to repeat."""


@dataclass(frozen=True, slots=True)
class BenchPrompt:
    """A conversation whose last message is to be answered."""

    name: str
    """Kind and number, such as `code-2`. Results contain this name and never the text."""
    kind: Kind
    messages: tuple[Message, ...]


def bundled_prompts(is_pocket: bool, kinds: Sequence[str] = BUNDLED_KINDS) -> list[BenchPrompt]:
    """The built-in prompts: for the pocket pair, or for Gemma."""
    file = DATA_FOLDER / ("pocket.yaml" if is_pocket else "prompts.yaml")
    texts = msgspec.convert(yaml.safe_load(file.read_text(encoding="utf-8")), dict[Kind, list[str]])
    return [prompt for kind in BUNDLED_KINDS if kind in kinds for prompt in _numbered(kind, texts[kind])]


def read_prompts(path: Path) -> list[BenchPrompt]:
    """A person's own prompts. Raises SlipstreamError for a file that cannot be used.

    One per line; or, if the file has blank lines, one per paragraph; or a JSON list of strings.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise SlipstreamError(f"--prompts {path}: there is no such file.") from None
    except OSError as error:
        raise SlipstreamError(f"--prompts {path} cannot be read: {error.strerror}.") from None
    if len(data) > MOST_BYTES:
        raise SlipstreamError(
            f"--prompts {path} is larger than {MOST_BYTES >> 20} MiB, the limit. Use fewer or shorter prompts."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SlipstreamError(
            f"--prompts {path} is not valid UTF-8 (byte {error.start}). Save it as UTF-8."
        ) from None
    prompts = [prompt for prompt in map(str.strip, parse_prompts(text, str(path))) if prompt]
    if not prompts:
        raise SlipstreamError(f"--prompts {path} is empty. Write one prompt per line.")
    if len(prompts) > MOST_PROMPTS:
        raise SlipstreamError(
            f"--prompts {path} has {len(prompts)} prompts, and {MOST_PROMPTS} is the limit. Use fewer."
        )
    return _numbered("own", prompts)


def parse_prompts(text: str, where: str) -> list[str]:
    """Split a text into prompts, as `read_prompts` describes. Raises SlipstreamError. where: the file's name."""
    if text.lstrip().startswith("["):
        try:
            return msgspec.json.decode(text, type=list[str])
        except (msgspec.DecodeError, ValueError) as error:
            raise SlipstreamError(
                f"--prompts {where} starts with [ but is not a JSON list of strings: {error}."
            ) from None
    lines = [line.strip() for line in text.strip().split("\n")]
    if all(lines):
        return lines
    return "\n".join(lines).split("\n\n")


def stored_prompts(store: ChatStore, most: int = STORED_PROMPTS) -> list[BenchPrompt]:
    """The latest prompts of stored chats, each with the conversation before it. Raises SlipstreamError."""
    prompts: list[BenchPrompt] = []
    for chat in store.list_chats(limit=most):
        path = store.path(chat.id)
        indices = [index for index, message in enumerate(path) if message.role == "user" and message.text.strip()]
        for index in reversed(indices):
            name = f"stored-{chat.id}.{path[index].id}"
            prompts.append(BenchPrompt(name, "stored", _conversation(path[: index + 1])))
    if not prompts:
        raise SlipstreamError("--chats: there are no stored chats yet. Run `slipstream` to start one.")
    return prompts[:most]


def _conversation(path: Sequence[StoredMessage]) -> tuple[Message, ...]:
    """The messages for the engine, without empty ones and without prompts that were never answered."""
    return tuple(
        Message(message.role, message.text)
        for message, after in zip(path, [*path[1:], None])
        if message.text.strip() and (after is None or message.role != after.role)
    )


def _numbered(kind: Kind, texts: Sequence[str]) -> list[BenchPrompt]:
    return [
        BenchPrompt(f"{kind}-{number}", kind, (Message("user", text),)) for number, text in enumerate(texts, 1)
    ]
