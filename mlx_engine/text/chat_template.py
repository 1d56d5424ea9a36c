"""Runs a folder's chat template within limits: it cannot reach anything, run for ever or fill the memory.

Jinja's sandbox keeps a template away from Python and from changing its input, but lets it loop and build text
without limit. Here every step of a loop and every call checks the clock, and every operation that makes text
longer is measured before it is done. Other ways to grow are not available; no published Gemma template uses them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

LIMIT_S, MORE_PER_MESSAGE_S = 5.0, 0.01
"""Published templates take milliseconds, but for each message they look at all messages before it."""
MAX_TEMPLATE_CHARACTERS = 1 << 20
MAX_TEXT_CHARACTERS = 16 << 20
"""Limit for any text or list that a template builds, in addition to COPIES of the conversation."""
COPIES = 4
FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items", "last", "length",
    "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "safe", "select", "selectattr",
    "sort", "title", "trim", "unique", "upper",
)  # fmt: skip
GLOBALS = ("dict", "namespace", "range")
STRING_METHODS = (
    "capitalize", "count", "endswith", "find", "index", "isalpha", "isdigit", "isspace", "lower", "lstrip",
    "removeprefix", "removesuffix", "replace", "rfind", "rsplit", "rstrip", "split", "splitlines", "startswith",
    "strip", "title", "upper",
)  # fmt: skip
Scalar = str | int | float | None | jinja2.Undefined


class TemplateFailedError(Exception):
    """The template is invalid, fails, refuses the conversation, or exceeds a limit; the message says which."""


class ChatTemplate:
    """One template. Raises TemplateFailedError if it cannot be compiled."""

    def __init__(self, source: str, clock: Callable[[], float] = monotonic) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise TemplateFailedError(f"it is longer than {MAX_TEMPLATE_CHARACTERS:,} characters")
        self._sandbox = _Sandbox(clock)
        try:
            self._template = self._sandbox.compiled(source)
        except (jinja2.TemplateError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise TemplateFailedError(_reason(error)) from None

    def render(self, messages: Sequence[dict[str, str]], **variables: Any) -> str:
        """The conversation as text. Raises TemplateFailedError."""
        self._sandbox.start(len(messages), COPIES * sum(len(message["content"]) for message in messages))
        try:
            return self._template.render(messages=messages, **variables)
        except Exception as error:  # the template is a program, and may fail in any way
            raise TemplateFailedError(_reason(error)) from None


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with limits on time and size."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, finalize=_scalar)
        self._clock = clock
        self.start()
        limited = {"steps": self._steps, "join": self._join, "replace": self._replace, "tojson": self._to_json}
        self.filters = {name: self.filters[name] for name in FILTERS} | limited
        self.filters["string"] = lambda value: str(_scalar(value))
        self.globals = {name: self.globals[name] for name in GLOBALS} | {"raise_exception": _raise_exception}

    def start(self, messages: int = 0, more_characters: int = 0) -> None:
        """Start the clock for this number of messages, and raise the limit on text by `more_characters`."""
        self._limit_s = LIMIT_S + MORE_PER_MESSAGE_S * messages
        self._deadline_s = self._clock() + self._limit_s
        self._max_characters = MAX_TEXT_CHARACTERS + more_characters

    def compiled(self, source: str) -> jinja2.Template:
        """The template, with every loop and concatenation going through the filters of this class."""
        tree = _LimitsInserted().visit(self.parse(source))
        tree.set_environment(self)
        return self.template_class.from_code(self, self.compile(tree), self.make_globals(None))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A fast path for namespaces: only the template fills them, and it reads them in nested loops."""
        if type(obj) is Namespace and not attribute.startswith("_"):
            with suppress(AttributeError):
                return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Texts have only the methods that cannot make them longer, and `replace`, which is measured."""
        is_allowed = not isinstance(obj, str) or attr in STRING_METHODS
        return is_allowed and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Treats `format` like any other attribute, so it is refused: a width would make texts of any length."""

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Every call is a step."""
        __self._tick()
        text = getattr(__obj, "__self__", None)
        if isinstance(text, str) and __obj.__name__ == "replace":
            return __self._replace(text, *args, **kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Sums of texts and lists are measured; products and powers take small numbers only."""
        if operator == "+":
            if hasattr(left, "__len__") and hasattr(right, "__len__"):
                self._measure(len(left) + len(right))
        elif operator == "**" or not all(isinstance(n, int | float) and abs(n) < 1 << 64 for n in (left, right)):
            raise TemplateFailedError(f"it uses {operator} on more than small numbers")
        return super().call_binop(context, operator, left, right)

    def _tick(self) -> None:
        if self._clock() > self._deadline_s:
            raise TemplateFailedError(f"it takes longer than {self._limit_s:.0f} seconds")

    def _measure(self, length: int) -> None:
        if length > self._max_characters:
            raise TemplateFailedError(f"it builds a text of more than {self._max_characters:,} characters")

    def _steps(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._tick()
            yield item

    def concat(self, pieces: Iterable[str], /) -> str:
        """Joins the output of the template, its blocks and its macros."""
        parts, length = [], 0
        for piece in pieces:
            length += len(piece)
            self._measure(length)
            parts.append(piece)
        return "".join(parts)

    def _join(self, items: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
        if attribute is not None:
            items = (self.getitem(item, attribute) for item in items)
        texts = (str(_scalar(item)) for item in self._steps(items))
        return self.concat(
            piece for index, text in enumerate(texts) for piece in ((between, text) if index else (text,))
        )

    def _replace(self, text: str, old: str, new: str, count: int = -1) -> str:
        text, old, new = (str(_scalar(value)) for value in (text, old, new))
        self._measure(len(text) + text.count(old) * len(new))
        return text.replace(old, new, count)

    def _to_json(self, value: Any, indent: int | None = None, **_: Any) -> str:
        encoder = json.JSONEncoder(ensure_ascii=False, indent=min(indent, 8) if indent else None)
        return self.concat(self._steps(encoder.iterencode(value)))


class _LimitsInserted(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr)
        node.iter = _filtered(node.iter, "steps")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _scalar(value: Any) -> Scalar:
    """Only scalars become text: nested lists can refer to each other so often that their text fills any memory."""
    if isinstance(value, str | int | float | jinja2.Undefined) or value is None:
        return value
    raise TemplateFailedError(f"it writes a {type(value).__name__}, which is not text")


def _reason(error: Exception) -> str:
    return str(error)[:300] or type(error).__name__


def _raise_exception(message: Any) -> NoReturn:
    """Published templates call this to refuse a conversation."""
    raise TemplateFailedError(str(_scalar(message)))
