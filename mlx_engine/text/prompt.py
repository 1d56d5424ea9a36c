"""Between messages and token ids: the chat template, safely, and stop tokens.

What a person writes can never become a control token. The template is rendered with every control
spelling in the messages set aside; the control spellings that the rendered text then holds are the
template's own and become their ids, and all text between them is encoded with control tokens switched off.

A reply of this engine goes back into the prompt as the very tokens that were generated: encoding its text
again may split it otherwise, and what the cache holds of it would be lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from mlx_engine.files.folder_files import is_there, read_bytes, read_json, read_text
from mlx_engine.network.prefix import common_length
from mlx_engine.protocol.errors import EmptyPromptError, ModelFolderError, RequestError
from mlx_engine.protocol.events import Message
from mlx_engine.text.chat_template import ChatTemplate, TemplateFailedError
from mlx_engine.text.reply_text import ReplyText

STOP_SPELLINGS = ("<eos>", "<turn|>", "<|tool_response>")
"""Gemma 4's ids 1, 106 and 50: end of text, end of a turn, and handing over to a tool, which there is none of."""
CHANNEL_SPELLINGS = ("<|channel>", "<channel|>")
TEMPLATE_FILE = "chat_template.jinja"
SET_ASIDE = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))
"""Private-use characters that stand for what must not be looked into while the template is rendered."""

Said = Mapping[str, Sequence[int]]
"""Replies by their text: the tokens that they were generated as."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as the model reads it."""

    ids: list[int]
    marks: tuple[int, ...]
    """Positions where a later prompt may part from this one: where the newest message begins, and where
    the model's turn begins."""
    begun: list[int]
    """What `ids` end in: the tokens of a reply that goes on."""


class ChatFormat:
    """A folder's tokenizer and chat template. Raises ModelFolderError if either cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokenizer = _read_tokenizer(folder / "tokenizer.json")
        added = self._tokenizer.get_added_tokens_decoder()
        self._controls = {token.content: id for id, token in added.items() if token.special}
        self._tokenizer.encode_special_tokens = True
        try:
            self._template = ChatTemplate(_template_text(folder))
        except TemplateFailedError as error:
            raise ModelFolderError(f"{folder}: its chat template is not valid ({error}).") from None
        self._split = re.compile("|".join(map(re.escape, sorted(self._controls, key=len, reverse=True))) or "(?!)")

    @property
    def vocab_size(self) -> int:
        """One more than the highest token id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The ids at which every Gemma 4 reply ends."""
        return frozenset(self._controls[name] for name in STOP_SPELLINGS if name in self._controls)

    def render(self, messages: Sequence[Message], is_thinking: bool = False, said: Said | None = None) -> Prompt:
        """Token ids of a conversation, ready for the model's turn, or in the middle of it if a reply is last.

        Raises EmptyPromptError, RequestError, ModelFolderError.
        """
        begun: list[int] = []
        if messages and messages[-1].role == "assistant":
            *messages, reply = messages
            begun = list((said or {}).get(reply.text, ())) or self.encode(reply.text)
        if not messages or not messages[-1].text.strip():
            raise EmptyPromptError("The message is empty: there is nothing to answer. Type something first.")
        aside = _SetAside(self._split, messages, said or {})
        shown = [{"role": m.role, "content": aside.hide(m)} for m in messages]
        text = self._fill_in(shown, is_thinking, is_models_turn=True)
        # With an answer, the template no longer adds what only opens the model's turn.
        others = [shown[:-1], [*shown, {"role": "assistant", "content": "answer"}]]
        cuts = [common_length(text, self._fill_in(other, is_thinking)) for other in others if other]
        ids, marks = self._encode_rendered(text, aside, cuts)
        return Prompt(ids + begun, marks, begun)

    def _fill_in(self, messages: list[dict[str, str]], is_thinking: bool, is_models_turn: bool = False) -> str:
        try:
            return self._template.render(
                messages,
                add_generation_prompt=is_models_turn,
                enable_thinking=is_thinking,
                bos_token="<bos>",
                eos_token="<eos>",
            )
        except TemplateFailedError as error:
            if not is_models_turn:
                return ""  # only looked at for where it parts from the prompt
            raise ModelFolderError(f"{self._folder}: its chat template failed ({error}).") from None

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; never a control token, whatever the text spells."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self._control_ids.isdisjoint(ids):
            return ids
        return [id for character in text for id in self._tokenizer.encode(character, add_special_tokens=False).ids]

    def reply_text(self) -> ReplyText:
        """A decoder for one reply."""
        opens, closes = (self._controls.get(name, -1) for name in CHANNEL_SPELLINGS)
        return ReplyText(self._tokenizer, opens, closes, self._control_ids)

    @property
    def _control_ids(self) -> frozenset[int]:
        return frozenset(self._controls.values())

    def has_same_tokens(self, other: ChatFormat) -> bool:
        """Whether every id means the same in both tokenizers, as far as ids have a meaning."""
        return self._tokenizer.get_vocab() == other._tokenizer.get_vocab()

    def _encode_rendered(
        self, text: str, aside: _SetAside, cuts: Sequence[int]
    ) -> tuple[list[int], tuple[int, ...]]:
        """Token ids, and how many of them stand before each of the cuts in the text."""
        ids: list[int] = []
        marks = [0] * len(cuts)
        begin = 0
        for end in (*(place for match in self._split.finditer(text) for place in match.span()), len(text)):
            piece = text[begin:end]
            ids += [self._controls[piece]] if piece in self._controls else self._encode_piece(piece, aside)
            begin = end
            marks = [len(ids) if end <= cut else mark for cut, mark in zip(cuts, marks)]
        return ids, tuple(sorted(set(marks)))

    def _encode_piece(self, piece: str, aside: _SetAside) -> list[int]:
        ids: list[int] = []
        for part in aside.replies.split(piece):
            said = aside.said.get(part)
            ids += self.encode(aside.show(part)) if said is None else said
        return ids


class _SetAside:
    """Hides control spellings and known replies behind characters that no message uses, and puts them back."""

    def __init__(self, controls: re.Pattern[str], messages: Sequence[Message], said: Said) -> None:
        self._controls = controls
        replies = {m.text for m in messages if m.role == "assistant" and m.text in said}
        texts = [m.text for m in messages]
        spellings = {match for text in texts for match in controls.findall(text)}
        used = set().union(*texts) if spellings or replies else set()
        needed = len(spellings) + len(replies)
        free = list(islice((chr(code) for code in SET_ASIDE if chr(code) not in used), needed))
        if len(free) < needed:
            raise RequestError("The conversation uses every private-use character. Take some of them out.")
        self._spellings = dict(zip(sorted(spellings), free))
        self._replies = dict(zip(sorted(replies), free[len(spellings) :]))
        self._originals = {ord(stand_in): spelling for spelling, stand_in in self._spellings.items()}
        self.said = {stand_in: said[reply] for reply, stand_in in self._replies.items()}
        """Stand-in -> the tokens of the reply that it hides."""
        self.replies = re.compile("([" + "".join(self.said) + "])" if self.said else "(?!)")

    def hide(self, message: Message) -> str:
        """The message with a stand-in for each control spelling, or for all of it."""
        if message.role == "assistant" and message.text in self._replies:
            return self._replies[message.text]
        return self._controls.sub(lambda match: self._spellings[match.group()], message.text)

    def show(self, text: str) -> str:
        """The text as it was written."""
        return text.translate(self._originals)


def _read_tokenizer(path: Path) -> Tokenizer:
    content = read_bytes(path)
    try:
        return Tokenizer.from_buffer(content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises Exception itself, and its panics are not even that
        raise ModelFolderError(f"{path} is not a usable tokenizer ({error}). Download it again.") from None


def _template_text(folder: Path) -> str:
    path = folder / TEMPLATE_FILE
    text = read_text(path) if is_there(path) else read_json(folder / "tokenizer_config.json").get("chat_template")
    if not isinstance(text, str):
        raise ModelFolderError(
            f"{folder} has no chat template ({TEMPLATE_FILE}, or chat_template in tokenizer_config.json). "
            "Use an instruction-tuned checkpoint (its name ends in -it)."
        )
    return text
