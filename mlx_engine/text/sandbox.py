"""The sandbox that chat templates run in: Jinja's own, with bounds on time, on each text, and on their sum.

Jinja's sandbox keeps a template away from Python and from changing its input, but lets it loop and build text
without limit. Here every step of a loop and every call checks the clock, and whatever makes a new text or list is
measured before it does. Other ways to grow are not available; no published Gemma template uses them.

What one call does in C cannot be interrupted from inside: `template_worker.py` runs all this in a process that can
be ended.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.filters import do_indent
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

COPIES, COPIES_IN_ALL = 4, 64
"""How often the conversation may be in one text, and in all that is built."""
FILTERS = (
    "abs", "count", "d", "default", "first", "float", "int", "items", "last", "length", "round", "safe",
)  # fmt: skip
COPYING_FILTERS = ("capitalize", "lower", "reverse", "title", "trim", "truncate", "upper", "wordcount")
ITERATING_FILTERS = (
    "dictsort", "groupby", "list", "map", "max", "min", "reject", "rejectattr", "select", "selectattr", "sort",
    "unique",
)  # fmt: skip
GLOBALS = ("dict", "range")
STRING_METHODS = (
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdecimal", "isdigit",
    "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition",
    "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split",
    "splitlines", "startswith", "strip", "swapcase", "title", "upper",
)  # fmt: skip
BYTES_PER_CHARACTER = 64
"""Of a conversation, for its copies in memory."""
MAX_JSON_INDENT = 64
MAX_TIME_FORMAT = 1000
CHECK_MEMORY_EVERY = 1024
SIZED = (str, list, tuple, dict, set, frozenset, range)
Scalar = str | int | float | None | jinja2.Undefined


class Limits(msgspec.Struct, frozen=True):
    """What rendering one conversation may take."""

    time_s: float = 5.0
    """Of processor time, by the sandbox's own checks."""
    more_per_message_s: float = 0.01
    """Published templates take milliseconds, but for each message they look at all messages before it."""
    grace_s: float = 1.0
    """After that the kernel ends the process; the sandbox says better what went wrong."""
    text_characters: int = 16 << 20
    """For any one text or list, in addition to COPIES of the conversation."""
    sum_characters: int = 64 << 20
    """For all texts and lists together, in addition to COPIES_IN_ALL of the conversation."""
    more_per_message_characters: int = 20_000
    memory_bytes: int = 1 << 30
    """By which the process may grow, in addition to BYTES_PER_CHARACTER for the conversation."""

    def limit_s(self, messages: int) -> float:
        """For a conversation of this many messages."""
        return self.time_s + self.more_per_message_s * messages

    def limit_bytes(self, characters: int) -> int:
        """For a conversation of this many characters."""
        return self.memory_bytes + BYTES_PER_CHARACTER * characters


class TemplateFailedError(Exception):
    """The template is invalid, fails, refuses the conversation, or exceeds a limit; the message says which."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with limits on time and size."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_scalar,
            extensions=["jinja2.ext.loopcontrols", GenerationTag],
        )
        self._limits, self._clock = limits, clock
        self.now: Callable[[], datetime] = datetime.now
        self.start()
        limited = {"steps": self._steps, "join": self._join, "replace": self._replace, "tojson": self._to_json}
        limited |= {"section": self._section, "indent": self._indent, "sum": self._sum}
        copying = {name: self._measured(self.filters[name]) for name in COPYING_FILTERS}
        iterating = {name: self._stepped(self.filters[name]) for name in ITERATING_FILTERS}
        self.filters = {name: self.filters[name] for name in FILTERS} | copying | iterating | limited
        self.filters["string"] = lambda value: str(_scalar(value))
        self.globals = {name: self.globals[name] for name in GLOBALS}
        self.globals |= {
            "namespace": _Variables,
            "raise_exception": _raise_exception,
            "strftime_now": self._time_now,
        }

    def start(self, messages: int = 0, characters: int = 0) -> None:
        """Start the clock and the counts for a conversation of this size."""
        limits = self._limits
        self._limit_s = limits.limit_s(messages)
        self._deadline_s = self._clock() + self._limit_s
        self._max_characters = limits.text_characters + COPIES * characters
        more = limits.more_per_message_characters * messages
        self._max_in_all = limits.sum_characters + COPIES_IN_ALL * characters + more
        self._in_all = self._steps_done = 0
        self._max_resident_bytes = _peak_resident_bytes() + limits.limit_bytes(characters)

    def compiled(self, source: str) -> jinja2.Template:
        """The template, with every loop, slice and concatenation going through the filters of this class."""
        tree = _LimitsInserted().visit(self.parse(source))
        tree.set_environment(self)
        return self.template_class.from_code(self, self.compile(tree), self.make_globals(None))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A fast path for namespaces: only the template fills them, and it reads them in nested loops."""
        if type(obj) is _Variables and not attribute.startswith("_"):
            with suppress(AttributeError):
                return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Texts have only the methods that cannot make them longer, and those that are measured."""
        is_allowed = not isinstance(obj, str) or attr in STRING_METHODS
        return is_allowed and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Treats `format` like any other attribute, so it is refused: a width would make texts of any length."""

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Every call is a step, and what a method or a type may copy is measured."""
        __self._tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and __obj.__name__ == "replace":
            return __self._replace(owner, *args, **kwargs)
        if isinstance(owner, str) and __obj.__name__ == "join":
            (items,) = args
            return __self._join(items, owner)
        if not isinstance(__obj, Macro):
            __self._measure(sum(len(value) for value in (owner, *args) if isinstance(value, SIZED)))
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
        self._steps_done += 1
        if self._steps_done % CHECK_MEMORY_EVERY == 0 and _peak_resident_bytes() > self._max_resident_bytes:
            raise MemoryError

    def _measure(self, length: int) -> None:
        """Count a text or list of this length that is about to be built."""
        self._check_one(length)
        self._count(length)

    def _check_one(self, length: int) -> None:
        if length > self._max_characters:
            raise TemplateFailedError(f"it builds a text of more than {self._max_characters:,} characters")

    def _count(self, length: int) -> None:
        self._in_all += length
        if self._in_all > self._max_in_all:
            raise TemplateFailedError(f"it builds texts of more than {self._max_in_all:,} characters in all")

    def _steps(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._tick()
            yield item

    def concat(self, pieces: Iterable[str], /) -> str:
        """Joins the output of the template, its blocks and its macros."""
        parts, length = [], 0
        for piece in pieces:
            length += len(piece)
            self._check_one(length)
            self._count(len(piece))
            parts.append(piece)
        return "".join(parts)

    def _join(self, items: Iterable[Any], between: str = "", attribute: str | None = None) -> str:
        if attribute is not None:
            items = (self.getitem(item, attribute) for item in items)
        texts = (str(_scalar(item)) for item in self._steps(items))
        return self.concat(
            piece for index, text in enumerate(texts) for piece in ((between, text) if index else (text,))
        )

    def _replace(self, text: str, old: str, new: str, count: int | None = None) -> str:
        text, old, new = (str(_scalar(value)) for value in (text, old, new))
        self._measure(len(text) + text.count(old) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """With the options that transformers gives it."""
        texts = [indent if isinstance(indent, str) else " " * min(indent or 0, MAX_JSON_INDENT + 1)]
        if any(len(text) > MAX_JSON_INDENT for text in (*texts, *(separators or ()))):
            raise TemplateFailedError(f"it indents JSON by more than {MAX_JSON_INDENT} characters")
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return self.concat(self._steps(encoder.iterencode(value)))

    def _section(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """value[start:stop:step]; Jinja would not ask the sandbox."""
        part = slice(*(None if isinstance(at, jinja2.Undefined) else at for at in (start, stop, step)))
        if isinstance(value, SIZED):
            self._measure(len(range(len(value))[part]))
        return value[part]

    def _indent(self, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        size = len(width) if isinstance(width, str) else width
        self._measure(len(text))
        self._measure(len(text) + (len(text.splitlines()) + 1) * size)
        return do_indent(text, width, first, blank)

    def _sum(self, items: Iterable[Any], attribute: str | None = None, start: float = 0) -> float:
        """Of numbers; lists would be copied once for each item."""
        values = self._steps(items)
        if attribute is not None:
            values = (self.getitem(item, attribute) for item in values)
        total = start
        for value in values:
            if not isinstance(value, int | float) or not isinstance(total, int | float):
                raise TemplateFailedError("it sums what is not a number")
            total += value
        return total

    def _time_now(self, format: str) -> str:
        if len(format) > MAX_TIME_FORMAT:
            raise TemplateFailedError(f"its time format is longer than {MAX_TIME_FORMAT:,} characters")
        text = self.now().strftime(format)
        self._measure(len(text))
        return text

    def _measured(self, filter: Callable[..., Any]) -> Callable[..., Any]:
        return self._before(filter, self._size_counted)

    def _stepped(self, filter: Callable[..., Any]) -> Callable[..., Any]:
        return self._before(filter, self._items_counted)

    @staticmethod
    def _before(filter: Callable[..., Any], prepare: Callable[[Any], Any]) -> Callable[..., Any]:
        """The filter on a prepared value; Jinja passes some filters another argument first."""
        at = 1 if hasattr(filter, "jinja_pass_arg") else 0

        @wraps(filter)  # copies `jinja_pass_arg`
        def prepared(*args: Any, **kwargs: Any) -> Any:
            return filter(*args[:at], prepare(args[at]), *args[at + 1 :], **kwargs)

        return prepared

    def _size_counted(self, value: Any) -> Any:
        if isinstance(value, SIZED):
            self._measure(len(value))
        return value

    def _items_counted(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._size_counted(value)
        return self._counted_steps(value)

    def _counted_steps(self, items: Iterable[Any]) -> Iterator[Any]:
        for length, item in enumerate(self._steps(items), 1):
            self._check_one(length)
            self._count(1)
            yield item


class _Variables(Namespace):
    """A namespace that, as in transformers, refuses names which could hide Python's own."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise TemplateFailedError(f"it names a variable {name[:40]!r}, with an underscore in front")


class GenerationTag(Extension):
    """`{% generation %}` marks the assistant's part for training; only its body is rendered."""

    tags = {"generation"}  # noqa: RUF012  (the base class declares a plain set)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _LimitsInserted(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr)
        node.iter = _filtered(node.iter, "steps")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        none = nodes.Const(None, lineno=node.lineno)
        parts = [part or none for part in (node.arg.start, node.arg.stop, node.arg.step)]
        return _filtered(node.node, "section", parts)


def _filtered(node: nodes.Expr, name: str, arguments: list[nodes.Expr] | None = None) -> nodes.Filter:
    return nodes.Filter(node, name, arguments or [], [], None, None, lineno=node.lineno)


def _scalar(value: Any) -> Scalar:
    """Only scalars become text: nested lists can refer to each other so often that their text fills any memory."""
    if isinstance(value, str | int | float | jinja2.Undefined) or value is None:
        return value
    raise TemplateFailedError(f"it writes a {type(value).__name__}, which is not text")


def _raise_exception(message: Any) -> NoReturn:
    """Published templates call this to refuse a conversation."""
    raise TemplateFailedError(str(_scalar(message)))


def _peak_resident_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
