"""From messages to token ids: the chat template, applied safely, and the stop tokens.

Nothing a person writes can become a control token. Before the template is rendered, every spelling of a control
token in the messages is replaced by a stand-in character. The control spellings in the rendered text are then the
template's own and become their ids; the text between them is encoded with control tokens switched off.

A reply of this engine returns to the prompt as exactly the tokens that were generated. Encoding its text again
could split it differently, and the cache would no longer match.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlx_engine.files.config_bounds import tables_too_small
from mlx_engine.files.folder_files import read_bytes
from mlx_engine.files.written_values import token_ids
from mlx_engine.protocol.errors import EmptyPromptError, ModelFolderError, RequestError, naming
from mlx_engine.protocol.events import Message, Tool
from mlx_engine.text.call_reader import CallMarks
from mlx_engine.text.common_prefix import common_length
from mlx_engine.text.frequent_tokens import frequent_tokens
from mlx_engine.text.grammar import Grammars
from mlx_engine.text.hidden_texts import HiddenTexts
from mlx_engine.text.model_turn import ModelTurn, in_turns, joined, written_turn
from mlx_engine.text.reply_text import ReplyDecoder
from mlx_engine.text.sandbox import TemplateFailedError
from mlx_engine.text.template_age import old_habits
from mlx_engine.text.template_files import TEMPLATE_FILE, read_template
from mlx_engine.text.template_process import TemplateProcess
from mlx_engine.text.tokenizer import (
    end_token_texts,
    parse_tokenizer,
    read_special_tokens_map,
    read_tokenizer_config,
    special_tokens,
    vocabulary_size,
)
from mlx_engine.text.tool_declaration import declaration
from mlx_engine.text.tool_format import Parts, opened_thought

STOP_SPELLINGS = ("<eos>", "<turn|>", "<|tool_response>")
"""Gemma 4's ids 1, 106 and 50: end of text, end of a turn, and the end of the calls of tools."""
TURN_SPELLING = "<|turn>"
CHANNEL_SPELLINGS = ("<|channel>", "<channel|>")
LONG_CHARACTERS = 1 << 11
"""From here on, encoding a text takes as long as a part of a round, which must not wait for it."""
END_OF_TURN = "<turn|>\n"
"""As templates write it."""

KnownReplies = Mapping[str, Sequence[int]]
"""The `reply_key` of a reply, its text if it has no calls -> the tokens that it was generated as."""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A conversation as the model reads it."""

    ids: list[int]
    branch_points: tuple[int, ...]
    """Positions where a later prompt may differ from this one: the start of the newest message, and the start of
    the model's turn."""
    reply_prefix: str
    """The start of the reply, if `ids` end in a reply that is to be continued."""
    reply_prefix_ids: list[int]
    thought_ids: tuple[int, ...] = ()
    """The end of `ids` from the mark on that opens a thought, if the reply begins inside that thought."""


class ChatFormat:
    """A folder's tokenizer and chat template. Raises ModelFolderError if either cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / "tokenizer.json"
        content = read_bytes(path)
        config = read_tokenizer_config(folder)
        source = read_template(folder, config)
        # Its process starts while the tokenizer is made, which takes a second for Gemma's.
        self._template = TemplateProcess(source)
        self._tokenizer = parse_tokenizer(content, path)
        named = config, read_special_tokens_map(folder)
        self._special_tokens = special_tokens(*named)
        self._end_texts = end_token_texts(*named) | {self._special_tokens["eos_token"]}
        self._end_ids = frozenset[int]().union(*(token_ids(one.get("eos_token_id"))[0] for one in named))
        self._controls = self._control_tokens()
        self._control_ids = frozenset(self._controls.values())
        self._tokenizer.encode_special_tokens = True
        try:
            self._template.check()
        except TemplateFailedError as error:
            raise ModelFolderError(f"{folder}: its chat template is not valid ({error}).") from None
        self._split = re.compile("|".join(map(re.escape, sorted(self._controls, key=len, reverse=True))) or "(?!)")

        self.can_think = "enable_thinking" in source
        """Whether the template has a place for thinking."""
        self.vocab_size = vocabulary_size(self._tokenizer)
        """The highest token id plus one."""

    def _control_tokens(self) -> dict[str, int]:
        """Text -> id: special tokens, and end tokens that are added ones but not marked as special."""
        added = self._tokenizer.get_added_tokens_decoder().items()
        return {token.content: id for id, token in added if token.special or token.content in self._end_texts}

    @cached_property
    def longest_token(self) -> int:
        """The most characters that a token stands for."""
        return max(map(len, self._tokenizer.get_vocab()), default=1)

    def frequent_tokens(self, count: int, ends: Set[int]) -> tuple[int, ...]:
        """About `count` ids, sorted, that most of any text consists of, control tokens and `ends` included."""
        certain = self._control_ids | ends
        return tuple(sorted(frequent_tokens(self._tokenizer.get_vocab(), certain, count)))

    def check_fits(self, embedded_tokens: int) -> None:
        """Raise ModelFolderError if an id is beyond the model's embedding table.

        Looking it up would read memory that does not belong to the table.
        """
        if self.vocab_size > embedded_tokens:
            raise tables_too_small(self._folder, self.vocab_size, embedded_tokens)

    def age_notice(self) -> str | None:
        """What to tell people about a chat template from before July 2026."""
        habits = old_habits(
            lambda messages, **variables: self._template.render(
                messages, None, **variables, **self._special_tokens
            )
        )
        if not habits:
            return None
        return (
            f"The chat template of {self._folder} is from before July 2026: it {' and '.join(habits)}. "
            f"Pull the model again, or put the present {TEMPLATE_FILE} of the original model into the folder."
        )

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The ids that end every Gemma 4 reply, and the end tokens that the tokenizer's files name."""
        named = map(self._tokenizer.token_to_id, self._end_texts)
        usual = {self._controls[name] for name in STOP_SPELLINGS if name in self._controls}
        return self._end_ids.union(usual, (id for id in named if id is not None))

    def render(
        self,
        messages: Sequence[Message],
        is_thinking: bool = False,
        known_replies: KnownReplies | None = None,
        tools: Sequence[Tool] = (),
    ) -> RenderedPrompt:
        """Token ids of a conversation up to the model's turn, or into it if that has begun.

        It has begun if the last message is a reply, which is continued, or a call or its result.
        Raises EmptyPromptError, RequestError, ModelFolderError.
        """
        known = known_replies or {}
        reply_prefix, reply_prefix_ids = "", list[int]()
        if messages and messages[-1].role == "assistant" and not messages[-1].calls:
            *messages, reply = messages
            reply_prefix = reply.text
            reply_prefix_ids = list(known.get(reply_prefix, ())) or self.encode(reply_prefix)
        entries = in_turns(messages)
        last = entries[-1] if entries else None
        if last is None or (isinstance(last, Message) and not last.text.strip()):
            raise EmptyPromptError("The message is empty. Type something first.")
        shown = self._shown(entries, known, tools)
        now_s = time.time()
        text = self._rendered(shown, shown.messages, is_thinking, now_s, is_models_turn=True)
        # Followed by an answer, the template drops what only opens the model's turn.
        variants = [shown.messages[:-1], [*shown.messages, {"role": "assistant", "content": "answer"}]]
        cuts = [
            common_length(text, self._rendered(shown, other, is_thinking, now_s)) for other in variants if other
        ]
        ids, branch_points = self._encode_rendered(text, shown.hidden, cuts)
        if isinstance(last, ModelTurn) and last.has_results_last and is_thinking and self.can_think:
            ids += self._encode_parts(opened_thought())
        thought_ids = self._opened_thought(ids)
        if reply_prefix:
            # What is continued is an answer: the thought that the template opens ended before it.
            ids = ids[: len(ids) - len(thought_ids)]
            thought_ids = ()
        branch_points = tuple(sorted({min(point, len(ids)) for point in branch_points}))
        return RenderedPrompt(ids + reply_prefix_ids, branch_points, reply_prefix, reply_prefix_ids, thought_ids)

    def render_text(self, text: str) -> RenderedPrompt:
        """Token ids of a text to continue, without the template. Raises EmptyPromptError."""
        if not text:
            raise EmptyPromptError("The prompt is empty. Send a text to continue.")
        begin = self._controls.get(self._special_tokens["bos_token"])
        ids = [*([] if begin is None else [begin]), *self.encode(text)]
        return RenderedPrompt(ids, (), "", [])

    def _shown(
        self, entries: Sequence[Message | ModelTurn], known: KnownReplies, tools: Sequence[Tool]
    ) -> _ShownConversation:
        inserts: dict[int, Sequence[int]] = {}
        """By the index of the entry that they replace; -1: the declarations of the tools."""
        for index, entry in enumerate(entries):
            if isinstance(entry, ModelTurn):
                with naming("messages"):
                    inserts[index] = written_turn(entry, self._encode_parts, lambda key: list(known.get(key, ())))
            elif entry.role == "assistant" and entry.text in known:
                inserts[index] = known[entry.text]
        if tools:
            with naming("tools"):
                inserts[-1] = [id for tool in tools for id in self._encode_parts(declaration(tool))]
        texts = [entry.text for entry in entries if isinstance(entry, Message)]
        hidden = HiddenTexts(self._split, texts, list(inserts.values()))
        stand_ins = dict(zip(inserts, hidden.stand_ins))
        messages: list[dict[str, str]] = []
        for index, entry in enumerate(entries):
            role, text = (entry.role, entry.text) if isinstance(entry, Message) else ("assistant", "")
            messages.append({"role": role, "content": stand_ins.get(index) or hidden.hide(text)})
        if tools:
            if messages[0]["role"] != "system":
                messages.insert(0, {"role": "system", "content": ""})
            messages[0]["content"] = messages[0]["content"].strip() + stand_ins[-1]
        pending = [
            stand_ins[index]
            for index, entry in enumerate(entries)
            if isinstance(entry, ModelTurn) and entry.has_pending_calls
        ]
        opened = stand_ins[len(entries) - 1] if isinstance(entries[-1], ModelTurn) else None
        return _ShownConversation(hidden, messages, pending, opened)

    def _rendered(
        self,
        shown: _ShownConversation,
        messages: list[dict[str, str]],
        is_thinking: bool,
        now_s: float,
        is_models_turn: bool = False,
    ) -> str:
        """What the template makes of messages that are shown, with the turns open that stay open."""
        is_begun = is_models_turn and shown.opened is not None
        text = self._render_template(messages, is_thinking, now_s, is_models_turn and not is_begun)
        for stand_in in shown.pending:
            text = text.replace(f"{stand_in}{END_OF_TURN}", stand_in)
        if is_begun:
            assert shown.opened
            before, found, _ = text.rpartition(shown.opened)
            if not found:
                raise ModelFolderError(f"{self._folder}: its chat template leaves out the model's last turn.")
            text = before + found
        return text

    def _render_template(
        self, messages: list[dict[str, str]], is_thinking: bool, now_s: float, is_models_turn: bool = False
    ) -> str:
        try:
            return self._template.render(
                messages,
                now_s,
                add_generation_prompt=is_models_turn,
                enable_thinking=is_thinking,
                **self._special_tokens,
            )
        except TemplateFailedError as error:
            if not is_models_turn:
                return ""  # only compared with the prompt
            raise ModelFolderError(f"{self._folder}: its chat template failed ({error}).") from None

    def _encode_parts(self, parts: Parts) -> list[int]:
        """Marks by their ids, and texts that cannot become marks. Raises RequestError without such marks."""
        ids: list[int] = []
        for part in joined(parts):
            if isinstance(part, str):
                # JSON can spell out halves of characters, which are no text.
                ids += self.encode(part.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
            elif part.value in self._controls:
                ids.append(self._controls[part.value])
            else:
                raise RequestError(f"This model cannot use tools: its tokenizer has no {part.value} token.")
        return ids

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; never a control token, whatever the text spells out."""
        if len(text) < LONG_CHARACTERS:
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        else:
            # For a batch, even of one, the library releases Python's lock, so that the engine still answers.
            ids = self._tokenizer.encode_batch([text], add_special_tokens=False)[0].ids
        if self._control_ids.isdisjoint(ids):
            return ids
        return [id for character in text for id in self._tokenizer.encode(character, add_special_tokens=False).ids]

    def grammars(self, end_tokens: Set[int], vocab_size: int) -> Grammars:
        """For replies that match a schema. Takes seconds with Gemma's vocabulary. Raises RequestError."""
        return Grammars(self._tokenizer, self._controls, end_tokens, vocab_size)

    def reply_decoder(self, thought_ids: Sequence[int] = (), has_tools: bool = False) -> ReplyDecoder:
        """A decoder for one reply; thought_ids: of its RenderedPrompt. has_tools: it may contain calls."""
        opens, closes = self._channel_marks
        calls = CallMarks(*(self._controls.get(mark.value, -1) for mark in CallMarks.ORDER)) if has_tools else None
        decoder = ReplyDecoder(self._tokenizer, opens, closes, self._control_ids, calls)
        decoder.add(thought_ids)
        return decoder

    @property
    def _channel_marks(self) -> tuple[int, int]:
        """The ids that open and close a channel, -1 if the tokenizer has none."""
        opens, closes = (self._controls.get(name, -1) for name in CHANNEL_SPELLINGS)
        return opens, closes

    def _opened_thought(self, ids: list[int]) -> tuple[int, ...]:
        """The end of a prompt from the mark on that opens a thought; empty if it does not end inside one."""
        opens, closes = self._channel_marks
        ends = {closes, self._controls.get(TURN_SPELLING, -1), *self.stop_tokens}
        for at in reversed(range(len(ids))):
            if ids[at] in ends:
                break
            if ids[at] == opens:
                return tuple(ids[at:])
        return ()

    def has_same_tokens(self, other: ChatFormat) -> bool:
        """Whether both tokenizers give every id the same text."""
        return self._tokenizer.get_vocab() == other._tokenizer.get_vocab()

    def _encode_rendered(
        self, text: str, hidden: HiddenTexts, cuts: Sequence[int]
    ) -> tuple[list[int], tuple[int, ...]]:
        """Token ids, and how many of them lie before each of these positions in the text."""
        ids: list[int] = []
        counts = [0] * len(cuts)
        begin = 0
        for end in (*(edge for match in self._split.finditer(text) for edge in match.span()), len(text)):
            part = text[begin:end]
            ids += [self._controls[part]] if part in self._controls else self._encode_part(part, hidden)
            begin = end
            counts = [len(ids) if end <= cut else count for cut, count in zip(cuts, counts)]
        return ids, tuple(sorted(set(counts)))

    def _encode_part(self, text: str, hidden: HiddenTexts) -> list[int]:
        ids: list[int] = []
        for part in hidden.insert_pattern.split(text):
            inserted = hidden.inserted.get(part)
            ids += self.encode(hidden.show(part)) if inserted is None else inserted
        return ids


@dataclass(frozen=True, slots=True)
class _ShownConversation:
    """A conversation as the template gets it."""

    hidden: HiddenTexts
    messages: list[dict[str, str]]
    pending: list[str]
    """Stand-ins of turns that end in calls without results: the template does not close those."""
    opened: str | None
    """The stand-in of the last turn, if it is the model's and goes on."""
