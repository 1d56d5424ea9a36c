"""Which tokens may come next in a reply whose form is prescribed, by llguidance: a JSON schema, calls of certain
tools, or none.

The whole reply is one grammar: thoughts if it may have any, then the text, or calls of tools. So a thought
that ends in the middle of a draft needs no case of its own. JSON is written as Python writes it, without free
spaces: a model that may put spaces anywhere can write them for ever.

llguidance is an extra, and is imported when the first form is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tokenizers import Tokenizer

from mlx_engine.protocol.errors import RequestError, naming
from mlx_engine.protocol.events import Generate, Tool
from mlx_engine.text.call_grammar import ArgumentRules, any_rules, spelled
from mlx_engine.text.exact_formats import with_exact_formats
from mlx_engine.text.reply_text import BYTE_TOKEN
from mlx_engine.text.tool_format import Mark, parsed_object

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

Thought = Literal["none", "possible", "begun"]
"""Whether the reply may begin with a thought, or begins inside one."""
UNSUPPORTED = "Unimplemented keys: "
BAD_PATTERN = re.compile(r"regex parse error:\n    (.*)\n *\^*\nerror: (.*)")
SPELLING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """What a reply may consist of, behind its thoughts."""

    schema: str | None = None
    """A JSON schema of its text; None: any text."""
    tools: tuple[Tool, ...] = ()
    """What it may call."""
    must_call: bool = False
    """It is calls and nothing else."""
    hides_tools: bool = False
    """The model knows tools that it may not call."""
    strict_tools: frozenset[str] = frozenset()
    """Those whose arguments match their schema."""

    @classmethod
    def of(cls, request: Generate) -> ReplyForm:
        """The form that a request prescribes."""
        can_call = request.tool_choice != "none"
        tools = tuple(tool for tool in request.tools if can_call and request.chosen_tool in (None, tool.name))
        return cls(
            schema=request.schema,
            tools=tools,
            must_call=request.tool_choice == "required",
            hides_tools=bool(request.tools) and not can_call,
            strict_tools=frozenset(request.strict_tools) & {tool.name for tool in tools},
        )

    @property
    def is_constrained(self) -> bool:
        """It needs a grammar."""
        return self.schema is not None or self.must_call or self.hides_tools or bool(self.strict_tools)


class Grammars:
    """Makes the grammars of one tokenizer. Raises RequestError if llguidance is not installed."""

    def __init__(
        self, tokenizer: Tokenizer, controls: Mapping[str, int], end_tokens: Set[int], vocab_size: int
    ) -> None:
        """controls: ids by spelling. end_tokens: all that end a reply. vocab_size: how many logits there are."""
        try:
            from llguidance import LLTokenizer, TokenizerWrapper
        except ImportError:
            raise _not_installed() from None
        self._end_tokens = frozenset(end_tokens)
        self._marks = {mark: controls.get(mark.value, -1) for mark in Mark}
        self._tokenizer: LLTokenizer = LLTokenizer(
            TokenizerWrapper(_Vocabulary(tokenizer, frozenset(controls.values()), min(end_tokens))),
            n_vocab=vocab_size,
            # Without them it takes an ordinary token such as </s> for the end.
            eos_token=sorted(end_tokens),
        )

    def grammar(self, form: ReplyForm, thought: Thought = "none") -> Grammar:
        """The grammar of one reply. Raises RequestError."""
        from llguidance import LLMatcher

        lark = "\n".join(_rules(form, self._marks, thought))
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(lark), log_level=0)
        if matcher.is_error():
            raise _unusable(form, matcher.get_error())
        return Grammar(matcher, self._end_tokens)


def check_form(form: ReplyForm) -> None:
    """Raise RequestError if there is no grammar for it. Quicker than to make one."""
    if error := _fault(form):
        raise _unusable(form, error)


def check_start(schema: str, text: str) -> None:
    """Raise RequestError if a reply that begins with this text cannot match the schema."""
    from llguidance import LLMatcher, LLTokenizer

    lark = "\n".join(_rules(ReplyForm(schema), dict.fromkeys(Mark, -1), "none"))
    matcher = LLMatcher(LLTokenizer("byte"), LLMatcher.grammar_from_lark(lark), log_level=0)
    start = list(text.encode())
    if matcher.try_consume_tokens(start) != len(start):
        raise _bad_start()


def _rules(form: ReplyForm, marks: Mapping[Mark, int], thought: Thought) -> Iterator[str]:
    """In llguidance's form of Lark; <[48]> is a token by its id."""
    if form.must_call and not form.tools:
        raise RequestError(
            "The reply has to call a tool, but the request has no such tool. Add it to its tools.", "tools"
        )
    opens, closes = (f"<[{marks[mark]}]>" for mark in (Mark.CHANNEL, Mark.CHANNEL_END))
    calls = "call+" if form.tools else ""
    if form.must_call:
        body = calls
    elif form.schema is not None:
        body = f"(answer | {calls})" if calls else "answer"
    else:
        body = f"PROSE? ({calls})?" if calls else "PROSE?"
    yield "start: " + {"none": "", "possible": "thought? ", "begun": f"PROSE? {closes} "}[thought] + body
    if form.schema is not None:
        with naming("schema"):
            keywords = with_exact_formats(parsed_object(form.schema, "The schema")) | {"x-guidance": SPELLING}
        yield f"answer: %json {json.dumps(keywords)}"
    yield "PROSE: /(?s:.+)/"
    if thought == "possible":
        yield f'thought: {opens} "thought\\n" PROSE? {closes}'
    if form.tools:
        begin, end, quote = (f"<[{marks[mark]}]>" for mark in (Mark.CALL, Mark.CALL_END, Mark.QUOTE))
        named = []
        for index, tool in enumerate(form.tools):
            if tool.name in form.strict_tools:
                rules = ArgumentRules(tool, f"arguments_{index}", quote)
                named.append(f"{spelled(f'call:{tool.name}')} {rules.start}")
                yield from rules.lines
            else:
                named.append(f"{spelled(f'call:{tool.name}{{')} (PROSE | {quote})*")
        yield f"call: {begin} ({' | '.join(named)}) {end}"
        if form.strict_tools:
            yield from any_rules(quote)


class Grammar:
    """Where a reply is in its grammar: after the committed tokens, and after nothing else."""

    def __init__(self, matcher: LLMatcher, end_tokens: frozenset[int]) -> None:
        self._matcher, self._end_tokens = matcher, end_tokens

    def masks(self, draft: Sequence[int]) -> list[bytes]:
        """A bit for each token, for the row before each draft and the row after the last.

        Rows behind a draft that is not allowed, or that ends the reply, are never drawn from: they repeat its row.
        """
        rows = [self._matcher.compute_bitmask()]
        taken = 0
        for token in draft:
            # The mask decides: where text is forced, the matcher also takes tokens that the mask leaves out.
            if token in self._end_tokens or not _has_bit(rows[-1], token):
                break
            if not self._matcher.try_consume_tokens([token]):
                break
            taken += 1
            rows.append(self._matcher.compute_bitmask())
        if taken:
            self._matcher.rollback(taken)
        return rows + rows[-1:] * (len(draft) + 1 - len(rows))

    def forced(self, limit: int) -> list[int]:
        """The next tokens, as far as the mask allows only one; end tokens are not among them."""
        tokens: list[int] = []
        while len(tokens) < limit:
            allowed = int.from_bytes(self._matcher.compute_bitmask(), "little")
            token = allowed.bit_length() - 1
            if allowed.bit_count() != 1 or token in self._end_tokens:
                break
            if not self._matcher.try_consume_tokens([token]):
                break
            tokens.append(token)
        if tokens:
            self._matcher.rollback(len(tokens))
        return tokens

    def advance(self, tokens: Sequence[int]) -> None:
        """Take tokens that were committed. Raises RequestError if they do not match."""
        if not self._take(tokens):
            raise RequestError(
                "The reply cannot match its schema: the model's settings suppress every token that may come next."
            )

    def resume(self, tokens: Sequence[int]) -> None:
        """Take the start of a reply that is to be continued. Raises RequestError if it does not match."""
        if not self._take(tokens):
            raise _bad_start()

    def _take(self, tokens: Sequence[int]) -> bool:
        texts = [token for token in tokens if token not in self._end_tokens]
        # A refused token would leave the matcher in an error for good: it is only tried.
        return self._matcher.try_consume_tokens(texts) == len(texts) and not self._matcher.is_error()


class _Vocabulary:
    """Tokens as the bytes that they stand for, in the form that llguidance reads.

    Tags such as <b> are ordinary tokens of Gemma's vocabulary, though its tokenizer.json lists them with the
    special ones; read from there, they could never be written.
    """

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, controls: Set[int], end_token: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = end_token
        size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        spellings = [tokenizer.id_to_token(id) for id in range(size)]
        self.tokens = [_bytes(spelling) for spelling in spellings]
        self.special_token_ids = [
            id
            for id, spelling in enumerate(spellings)
            if id in controls or not spelling or spelling.startswith("<unused")
        ]

    def __call__(self, text: str | bytes) -> list[int]:
        text = text.decode() if isinstance(text, bytes) else text
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _bytes(spelling: str | None) -> bytes:
    byte = BYTE_TOKEN.fullmatch(spelling or "")
    return bytes([int(byte[1], 16)]) if byte else (spelling or "<missing>").replace("▁", " ").encode()


def _not_installed() -> RequestError:
    return RequestError(
        "A schema needs llguidance, which is not installed. Run `pip install llguidance`, or install "
        "Slipstream with its extra: `pip install --editable '.[serve]'`."
    )


def _fault(form: ReplyForm) -> str:
    """What llguidance says against a form; empty: nothing. Raises RequestError."""
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise _not_installed() from None
    marks = {mark: id for id, mark in enumerate(Mark, 1)}
    lark = "\n".join(_rules(form, marks, "none"))
    return str(LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(lark)))


def _bad_start() -> RequestError:
    return RequestError(
        "The start of the reply does not match the schema, so it cannot be continued with it. "
        "Ask for another reply, or continue it without the schema.",
        "messages",
    )


def _unusable(form: ReplyForm, error: str) -> RequestError:
    """error: what llguidance says about the whole form; it does not say about which part of it."""
    for tool in form.tools:
        if tool.name in form.strict_tools:
            alone = ReplyForm(tools=(tool,), must_call=True, strict_tools=frozenset({tool.name}))
            if fault := _fault(alone):
                name = tool.name[:100]
                return RequestError(
                    f"The parameters of {name} cannot be used: {_reason(fault)}. Change that part of them.",
                    f"tools.{tool.name}",
                )
    return RequestError(f"The schema cannot be used: {_reason(error)}. Change that part of it.", "schema")


def _has_bit(row: bytes, token: int) -> bool:
    return token // 8 < len(row) and bool(row[token // 8] >> token % 8 & 1)


def _reason(error: str) -> str:
    """The part of llguidance's message that is about the schema."""
    line = error.partition("failed to compile JSON schema: ")[2] or error
    if found := BAD_PATTERN.search(line):
        return f"the pattern {found[1][:200]} is not supported, {found[2][:200]}"
    line = line.partition("\n")[0].rstrip(".")[:300]
    return line.replace(UNSUPPORTED, "it has keywords that are not supported, ") if UNSUPPORTED in line else line
