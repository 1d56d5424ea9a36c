"""Declarations of tools, in the system turn, as the published template of July 2026 writes them.

Only names, descriptions, types, enumerations of strings, and which parameters are required reach the model. The
template's other habits are kept, odd ones too, because the model was trained on what it writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mlx_engine.protocol.errors import naming
from mlx_engine.protocol.events import Tool
from mlx_engine.text.tool_format import Mark, Parts, in_order, parsed_object, quoted, written
from mlx_engine.text.tool_schema import Schema, flattened, flattened_properties

STANDARD_KEYS = ("description", "type", "properties", "required", "nullable")


def declaration(tool: Tool) -> Parts:
    """Raises RequestError if the parameters are no JSON object."""
    schema = parameters_of(tool)
    yield Mark.TOOL
    yield f"declaration:{tool.name}{{description:"
    yield from quoted(tool.description)
    if schema:
        yield ",parameters:{"
        yield from _top(schema)
    yield "}"
    yield Mark.TOOL_END


def parameters_of(tool: Tool) -> Schema:
    """The schema of its arguments. Raises RequestError."""
    with naming(f"tools.{tool.name}"):
        return parsed_object(tool.parameters, f"The parameters of {tool.name[:100]}")


def _top(schema: Schema) -> Parts:
    properties = schema.get("properties")
    if isinstance(properties, dict) and properties:
        yield "properties:{"
        yield from _properties(flattened_properties(properties))
        yield "},"
    if schema.get("required"):
        yield from _required(schema["required"])
        yield ","
    if isinstance(schema.get("type"), str):
        yield "type:"
        yield from quoted(schema["type"].upper())
        yield "}"  # without a type the template leaves the brace open


def _properties(properties: Schema) -> Parts:
    yield from _joined((*(f"{name}:{{",), *_property(schema), "}") for name, schema in in_order(properties))


def _property(schema: Any) -> Parts:
    yield from _joined(_keywords(schema if isinstance(schema, dict) else {}))


def _keywords(schema: Schema) -> Iterator[Iterable[Any]]:
    """The parts of each keyword that the template writes, in its order."""
    kind = schema.get("type", "")
    name = kind.upper() if isinstance(kind, str) else kind
    if schema.get("description"):
        yield "description:", *quoted(schema["description"])
    if name == "STRING" and schema.get("enum"):
        yield "enum:", *written(schema["enum"], has_quoted_keys=True)
    if name == "ARRAY" and isinstance(schema.get("items"), dict) and schema["items"]:
        yield "items:{", *_items(schema["items"]), "}"
    if schema.get("nullable"):
        yield ("nullable:true",)
    if name == "OBJECT":
        inner = schema.get("properties")
        if not isinstance(inner, dict):
            # The template takes the object's own keywords for properties.
            inner = {key: flattened(value) for key, value in schema.items() if key not in STANDARD_KEYS}
        yield "properties:{", *_properties(inner), "}"
        if schema.get("required"):
            yield _required(schema["required"])
    yield "type:", *_type(name)


def _items(items: Schema) -> Parts:
    yield from _joined(_item(key, value) for key, value in in_order(items) if value is not None)


def _item(key: str, value: Any) -> Parts:
    match key:
        case "properties":
            yield "properties:{"
            yield from _properties(value if isinstance(value, dict) else {})
            yield "}"
        case "required":
            yield from _required(value)
        case "type":
            yield "type:"
            yield from _type(value.upper() if isinstance(value, str) else value)
        case _:
            yield f"{key}:"
            yield from written(value, has_quoted_keys=True)


def _type(name: Any) -> Parts:
    yield from written([str(one).upper() for one in name]) if isinstance(name, list) else quoted(name)


def _required(names: Any) -> Parts:
    yield "required:["
    yield from _joined(quoted(name) for name in (names if isinstance(names, list) else []))
    yield "]"


def _joined(entries: Iterable[Iterable[Any]]) -> Parts:
    for index, entry in enumerate(entries):
        yield "," if index else ""
        yield from entry
