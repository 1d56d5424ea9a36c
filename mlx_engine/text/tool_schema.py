"""A tool's JSON schema, made simple enough for Gemma 4's declarations.

The published template writes one type per parameter and knows no anyOf: it writes a list of types as Python does,
and nothing at all for anyOf. Here a list of types or an anyOf becomes one schema: with its one type, nullable if
null is among them, or with a list of types where there are several.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def flattened(schema: Any) -> Schema:
    """The schema of one parameter without anyOf, oneOf and lists with null; properties within it as well."""
    if not isinstance(schema, dict):
        return {}
    schema = _with_one_type(_without_choices(schema))
    if isinstance(schema.get("properties"), dict):
        schema["properties"] = flattened_properties(schema["properties"])
    items = schema.get("items")
    if isinstance(items, dict) and ("anyOf" in items or "oneOf" in items):
        schema["items"] = flattened(items)
    elif isinstance(items, dict) and isinstance(items.get("properties"), dict):
        schema["items"] = items | {"properties": flattened_properties(items["properties"])}
    return schema


def flattened_properties(properties: Schema) -> dict[str, Schema]:
    """Each of them `flattened`; their names are no keywords, whatever they are."""
    return {name: flattened(schema) for name, schema in properties.items()}


def _without_choices(schema: Schema) -> Schema:
    """anyOf or oneOf merged into the schema that it belongs to, whose own keywords stay."""
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
    choices = schema.get("anyOf") or schema.get("oneOf")
    if not isinstance(choices, list):
        return rest
    merged: Schema = {}
    types: list[str] = []
    for choice in choices:
        choice = _without_choices(choice) if isinstance(choice, dict) else {}
        types += [name for name in _types(choice) if name not in types]
        merged = choice | merged
    return merged | ({"type": types} if types else {}) | rest


def _with_one_type(schema: Schema) -> Schema:
    types = _types(schema)
    others = [name for name in types if name != "null"]
    if not isinstance(schema.get("type"), list) or not others:
        return schema | ({"type": types[0]} if types else {})
    nullable = {"nullable": True} if len(others) < len(types) else {}
    return schema | {"type": others[0] if len(others) == 1 else others} | nullable


def _types(schema: Schema) -> list[str]:
    own = schema.get("type", [])
    return [name for name in (own if isinstance(own, list) else [own]) if isinstance(name, str)]
