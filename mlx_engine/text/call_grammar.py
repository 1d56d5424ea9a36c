"""The arguments of a call in Gemma 4's notation, as llguidance's form of Lark, from a tool's JSON schema.

Keys come in the order in which the model knows them, and without spaces. Types, enumerations, lengths, formats,
bounds of numbers, required keys and references are kept. Patterns of strings, and what combines schemas with
allOf or not, allow any value: the client checks arguments as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import Tool
from mlx_engine.text.exact_formats import HOSTNAME, MOST_OF_HOSTNAME, PATTERNS
from mlx_engine.text.tool_declaration import parameters_of
from mlx_engine.text.tool_format import in_order, written

ANY_RULES = (
    'any: {quote} PROSE? {quote} | NUMBER | "true" | "false" | "null" | any_object | any_array',
    'any_object: "{{" (KEY ":" any ("," KEY ":" any)*)? "}}"',
    'any_array: "[" (any ("," any)*)? "]"',
    "NUMBER: /-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?/",
    'KEY: /[^{{}}\\[\\]:,"\\s]+/',
)
"""Values of any type; PROSE is any text."""
NUMBER_KEYS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def any_rules(quote: str) -> Iterator[str]:
    """What the rules of arguments refer to. quote: the quote mark, as a token."""
    for rule in ANY_RULES:
        yield rule.format(quote=quote)


class ArgumentRules:
    """The rules of one tool's arguments. Raises RequestError if its schema is no object, or allows nothing."""

    def __init__(self, tool: Tool, prefix: str, quote: str) -> None:
        """prefix: of the rules' names. `lines` are the rules, `start` is the name of the first."""
        self._tool, self._prefix, self._quote = tool, prefix, quote
        self._root = parameters_of(tool)
        self._references: dict[str, str] = {}
        self._names = 0
        self.lines: list[str] = []
        self.start = self._rule(self._object(self._root))

    def _rule(self, body: str, name: str | None = None) -> str:
        name = name or self._new_name()
        self.lines.append(f"{name}: {body}")
        return name

    def _new_name(self) -> str:
        self._names += 1
        return f"{self._prefix}_{self._names}"

    def _value(self, schema: Any) -> str:
        """An expression for a value."""
        if not isinstance(schema, dict):
            return "any"
        if isinstance(reference := schema.get("$ref"), str):
            return self._referenced(reference)
        if isinstance(values := schema.get("enum"), list) and values:
            return self._one_of(self._literal(value) for value in values)
        if "const" in schema:
            return self._literal(schema["const"])
        for key in ("anyOf", "oneOf"):
            if isinstance(choices := schema.get(key), list) and choices:
                return self._one_of(self._value(choice) for choice in choices)
        kind = schema.get("type")
        if isinstance(kind, list) and kind:
            return self._one_of(self._of_type(each, schema) for each in kind)
        return self._of_type(kind, schema)

    def _of_type(self, kind: Any, schema: Mapping[str, Any]) -> str:
        match kind:
            case "string":
                return f"{self._quote} {self._text(schema)} {self._quote}"
            case "integer" | "number":
                bounds = {key: schema[key] for key in NUMBER_KEYS if key in schema}
                return self._rule(f"%json {json.dumps({'type': kind} | bounds)}")
            case "boolean":
                return '("true" | "false")'
            case "null":
                return '"null"'
            case "array":
                return self._rule(self._array(schema))
            case "object" if isinstance(schema.get("properties"), dict):
                return self._rule(self._object(schema))
            case "object":
                return "any_object"
        return "any"

    def _text(self, schema: Mapping[str, Any]) -> str:
        least, most = self._counts(schema, "minLength", "maxLength")
        format = schema.get("format")
        if isinstance(format, str) and format in PATTERNS:
            return self._formatted(PATTERNS[format], least, most)
        if most is None:
            return f"/(?s:.{{{least},}})/" if least else "PROSE?"
        return f"/(?s:.{{{least or 1},{most}}})/{'' if least else '?'}" if most else ""

    def _formatted(self, pattern: str, least: int, most: int | None) -> str:
        """The name of a token: only tokens can have two expressions at once, for the format and for the length."""
        if pattern is HOSTNAME:
            most = MOST_OF_HOSTNAME if most is None else min(most, MOST_OF_HOSTNAME)
        expressions = [f"({pattern})".replace("/", r"\/")]
        if least or most is not None:
            expressions.append(f"(?s:.{{{least},{'' if most is None else most}}})")
        return self._rule(" & ".join(f"/{each}/" for each in expressions), self._new_name().upper())

    def _array(self, schema: Mapping[str, Any]) -> str:
        item = self._value(schema.get("items"))
        least, most = self._counts(schema, "minItems", "maxItems")
        if most == 0:
            return '"[]"'
        more = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        items = f'{item} ("," {item}){more}'
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'

    def _counts(self, schema: Mapping[str, Any], least_key: str, most_key: str) -> tuple[int, int | None]:
        """The least and the most there may be of something. Raises RequestError if nothing lies between."""
        least, most = _count(schema, least_key) or 0, _count(schema, most_key)
        if most is not None and most < least:
            raise RequestError(
                f"The parameters of {self._tool.name[:100]} cannot be used: {least_key} ({least}) is greater than "
                f"{most_key} ({most}). Change one of them.",
                f"tools.{self._tool.name}",
            )
        return least, most

    def _object(self, schema: Mapping[str, Any]) -> str:
        """The rule of the keys from one on, before and after the first that is written."""
        properties = schema.get("properties")
        required = schema.get("required")
        needed = set(map(str, required)) if isinstance(required, list) else set()
        first = rest = ""
        for key, inner in reversed(in_order(properties if isinstance(properties, dict) else {})):
            pair = f"{spelled(f'{key}:')} {self._value(inner)}"
            after = self._rule(rest) if rest else ""
            if key in needed:
                first, rest = f"{pair} {after}", f'"," {pair} {after}'
            else:
                skipped = self._rule(first) if first else ""
                first = f"{pair} {after} | {skipped}" if skipped else f"({pair})?"
                rest = f'("," {pair})? {after}'
        return f'"{{" {self._rule(first)} "}}"' if first else '"{}"'

    def _referenced(self, reference: str) -> str:
        if reference not in self._references:
            self._references[reference] = name = self._new_name()
            self._rule(self._value(self._found(reference)), name)
        return self._references[reference]

    def _found(self, reference: str) -> Any:
        at: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            at = at.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(at, dict) else None
        return at

    def _literal(self, value: Any) -> str:
        # Its only marks are quotes.
        return " ".join(spelled(part) if isinstance(part, str) else self._quote for part in written(value) if part)

    def _one_of(self, choices: Iterator[str]) -> str:
        return f"({' | '.join(choices)})"


def spelled(text: str) -> str:
    """A text as the grammar writes it."""
    return json.dumps(text, ensure_ascii=False)


def _count(schema: Mapping[str, Any], key: str) -> int | None:
    value = schema.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
