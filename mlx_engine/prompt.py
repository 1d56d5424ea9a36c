"""Between text and token ids: the chat template, safely; stop tokens; text from a stream of tokens.

What a person writes can never become a control token. The template is rendered with every control
spelling in the messages set aside; the control spellings that the rendered text then holds are the
template's own and become their ids, and all text between them is encoded with control tokens switched off.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from mlx_engine.checkpoint import read_json
from mlx_engine.errors import EmptyPromptError, ModelFolderError
from mlx_engine.events import Message

STOP_SPELLINGS = ("<eos>", "<turn|>", "<|tool_response>")
"""Gemma 4's ids 1, 106 and 50: end of text, end of a turn, and handing over to a tool, which there is none of."""
BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
TEMPLATE_FILE = "chat_template.jinja"
SET_ASIDE = range(0xF0000, 0xFFFFE)
"""Private-use characters that stand for a control spelling while the template is rendered."""


class ChatFormat:
    """A folder's tokenizer and chat template. Raises ModelFolderError if either cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelFolderError(f"{path} is missing. The download is incomplete: fetch the folder again.")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises Exception itself
            raise ModelFolderError(f"{path} is not a usable tokenizer ({error}). Download it again.") from None
        added = self._tokenizer.get_added_tokens_decoder()
        self._controls = {token.content: id for id, token in added.items() if token.special}
        self._tokenizer.encode_special_tokens = True
        self._template = self._compile(_template_text(folder))
        self._split = re.compile("|".join(map(re.escape, sorted(self._controls, key=len, reverse=True))) or "(?!)")

    @property
    def vocab_size(self) -> int:
        """One more than the highest token id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The ids at which every Gemma 4 reply ends."""
        return frozenset(self._controls[name] for name in STOP_SPELLINGS if name in self._controls)

    def render(self, messages: Sequence[Message], is_thinking: bool = False) -> list[int]:
        """Token ids of a conversation, ready for the model's turn. Raises EmptyPromptError, ModelFolderError."""
        if not messages or not messages[-1].text.strip():
            raise EmptyPromptError("The message is empty: there is nothing to answer. Type something first.")
        aside = _SetAside(self._split, (message.text for message in messages))
        try:
            text = self._template.render(
                messages=[{"role": m.role, "content": aside.hide(m.text)} for m in messages],
                add_generation_prompt=True,
                enable_thinking=is_thinking,
                bos_token="<bos>",
                eos_token="<eos>",
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ModelFolderError(f"{self._folder}: its chat template failed ({error}).") from None
        return self._encode_rendered(text, aside)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; never a control token, whatever the text spells."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self._control_ids.isdisjoint(ids):
            return ids
        return [id for character in text for id in self._tokenizer.encode(character, add_special_tokens=False).ids]

    def stream(self) -> TextStream:
        """A decoder for one reply."""
        return TextStream(self._tokenizer)

    @property
    def _control_ids(self) -> frozenset[int]:
        return frozenset(self._controls.values())

    def _encode_rendered(self, text: str, aside: _SetAside) -> list[int]:
        ids: list[int] = []
        begin = 0
        for match in self._split.finditer(text):
            ids += self.encode(aside.show(text[begin : match.start()]))
            ids.append(self._controls[match.group()])
            begin = match.end()
        return ids + self.encode(aside.show(text[begin:]))

    def _compile(self, text: str) -> jinja2.Template:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
        environment.globals["raise_exception"] = _raise_exception
        try:
            return environment.from_string(text)
        except (jinja2.TemplateError, RecursionError) as error:
            raise ModelFolderError(f"{self._folder}: its chat template is not valid ({error}).") from None


class TextStream:
    """Turns token ids into text as they come, holding back a character until all its bytes are there.

    Gemma's tokenizer spells what its vocabulary lacks in byte tokens; every other token is text by itself.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, ids: Iterable[int]) -> str:
        """The text that these tokens complete; may be empty. Control tokens have none."""
        return self._characters.decode(b"".join(map(self._bytes, ids)))

    def finish(self) -> str:
        """What is still held back: an unfinished character, as a replacement character."""
        return self._characters.decode(b"", final=True)

    def _bytes(self, id: int) -> bytes:
        spelling = BYTE_TOKEN.fullmatch(self._tokenizer.id_to_token(id) or "")
        if spelling:
            return bytes([int(spelling[1], 16)])
        text: str = self._tokenizer.decode([id], skip_special_tokens=True)
        return text.encode()


class _SetAside:
    """Hides control spellings in messages behind characters that no message uses, and puts them back."""

    def __init__(self, controls: re.Pattern[str], texts: Iterable[str]) -> None:
        self._controls = controls
        texts = list(texts)
        spellings = sorted({match for text in texts for match in controls.findall(text)})
        used = set().union(*texts) if spellings else set()
        free = (chr(code) for code in SET_ASIDE if chr(code) not in used)
        self._stand_ins = dict(zip(spellings, free, strict=False))
        self._spellings = {ord(stand_in): spelling for spelling, stand_in in self._stand_ins.items()}

    def hide(self, text: str) -> str:
        """The text with a stand-in for each control spelling."""
        return self._controls.sub(lambda match: self._stand_ins[match.group()], text)

    def show(self, text: str) -> str:
        """The text as it was written."""
        return text.translate(self._spellings)


def _template_text(folder: Path) -> str:
    path = folder / TEMPLATE_FILE
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else None
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{path} cannot be read: {error}.") from None
    if text is None:
        text = read_json(folder / "tokenizer_config.json").get("chat_template")
    if not isinstance(text, str):
        raise ModelFolderError(
            f"{folder} has no chat template ({TEMPLATE_FILE}, or chat_template in tokenizer_config.json). "
            "Use an instruction-tuned checkpoint (its name ends in -it)."
        )
    return text


def _raise_exception(message: Any) -> NoReturn:
    """What published templates call to refuse a conversation."""
    raise jinja2.TemplateError(str(message))
