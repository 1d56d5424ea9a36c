"""A folder's chat template, run within bounds: it reaches nothing, and neither loops for ever nor fills memory.

Jinja's sandbox keeps a template away from Python and from changing what it is given, but lets it loop and grow
as it likes. Here every step of a loop and every call looks at the clock, and all that makes text longer is
measured before it is done. What could grow otherwise is left out; no published template of the family uses it.
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
"""Published templates take milliseconds, but look for each message at all before it."""
MAX_TEMPLATE_CHARACTERS = 1 << 20
MAX_TEXT_CHARACTERS = 16 << 20
"""Of any text or list that a template makes, on top of a few times the conversation."""
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
    """The template is not valid, fails, refuses the conversation, or passes a bound; the message says which."""


class ChatTemplate:
    """One template. Raises TemplateFailedError if it cannot be compiled."""

    def __init__(self, source: str, clock: Callable[[], float] = monotonic) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise TemplateFailedError(f"it is longer than {MAX_TEMPLATE_CHARACTERS >> 20} MB")
        self._sandbox = _Sandbox(clock)
        try:
            self._template = self._sandbox.compiled(source)
        except (jinja2.TemplateError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise TemplateFailedError(_words(error)) from None

    def render(self, messages: Sequence[dict[str, str]], **variables: Any) -> str:
        """The conversation as text. Raises TemplateFailedError."""
        self._sandbox.begin(len(messages), COPIES * sum(len(message["content"]) for message in messages))
        try:
            return self._template.render(messages=messages, **variables)
        except Exception as error:  # the template is a program, and may fail in any way
            raise TemplateFailedError(_words(error)) from None


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with bounds on time and size."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, finalize=_scalar)
        self._clock = clock
        self.begin()
        own = {"each": self._each, "join": self._join, "replace": self._replace, "tojson": self._to_json}
        self.filters = {name: self.filters[name] for name in FILTERS} | own | {"string": lambda v: str(_scalar(v))}
        self.globals = {name: self.globals[name] for name in GLOBALS} | {"raise_exception": _raise_exception}

    def begin(self, messages: int = 0, more_characters: int = 0) -> None:
        """Start the clock for so many messages; texts may have so many characters more than the limit."""
        self._limit_s = LIMIT_S + MORE_PER_MESSAGE_S * messages
        self._deadline_s = self._clock() + self._limit_s
        self._most_characters = MAX_TEXT_CHARACTERS + more_characters

    def compiled(self, source: str) -> jinja2.Template:
        """The template, with every loop and concatenation led through the filters of this class."""
        tree = _Measured().visit(self.parse(source))
        tree.set_environment(self)
        return self.template_class.from_code(self, self.compile(tree), self.make_globals(None))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What is in a namespace the template has put there itself, and asks for in loops within loops."""
        if type(obj) is Namespace and not attribute.startswith("_"):
            with suppress(AttributeError):
                return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of a text only the methods that cannot make it longer, and `replace`, which is measured."""
        is_allowed = not isinstance(obj, str) or attr in STRING_METHODS
        return is_allowed and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No `format`: a width makes a text as long as it says. It is an attribute like the others."""

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Every call is a step."""
        __self._tick()
        text = getattr(__obj, "__self__", None)
        if isinstance(text, str) and __obj.__name__ == "replace":
            return __self._replace(text, *args, **kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Sums of texts and lists are measured; products and powers are of small numbers only."""
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
        if length > self._most_characters:
            raise TemplateFailedError(f"it makes a text of more than {self._most_characters:,} characters")

    def _each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._tick()
            yield item

    def concat(self, pieces: Iterable[str], /) -> str:
        """What the template writes, and what its blocks and macros give."""
        kept, length = [], 0
        for piece in pieces:
            length += len(piece)
            self._measure(length)
            kept.append(piece)
        return "".join(kept)

    def _join(self, items: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
        if attribute is not None:
            items = (self.getitem(item, attribute) for item in items)
        texts = (str(_scalar(item)) for item in self._each(items))
        return self.concat(
            piece for at, text in enumerate(texts) for piece in ((between, text) if at else (text,))
        )

    def _replace(self, text: str, old: str, new: str, count: int = -1) -> str:
        text, old, new = (str(_scalar(each)) for each in (text, old, new))
        self._measure(len(text) + text.count(old) * len(new))
        return text.replace(old, new, count)

    def _to_json(self, value: Any, indent: int | None = None, **_: Any) -> str:
        encoder = json.JSONEncoder(ensure_ascii=False, indent=min(indent, 8) if indent else None)
        return self.concat(self._each(encoder.iterencode(value)))


class _Measured(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr)
        node.iter = _filtered(node.iter, "each")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _scalar(value: Any) -> Scalar:
    """What may become text: lists in lists could name each other so often that no memory holds their text."""
    if isinstance(value, str | int | float | jinja2.Undefined) or value is None:
        return value
    raise TemplateFailedError(f"it writes a {type(value).__name__}, which is no text")


def _words(error: Exception) -> str:
    return str(error)[:300] or type(error).__name__


def _raise_exception(message: Any) -> NoReturn:
    """What published templates call to refuse a conversation."""
    raise TemplateFailedError(str(_scalar(message)))
