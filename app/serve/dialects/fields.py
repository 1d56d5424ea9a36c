"""The fields of a request's JSON, read with their place in it, so that a refusal names the field to change."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from app.serve.errors import BadRequestError


class Fields:
    """One object of a request. A field that is null is like one that is not there; unknown ones are never read."""

    def __init__(self, values: Mapping[str, Any], place: str = "") -> None:
        self._values = values
        self._place = place

    def place(self, key: str = "") -> str:
        """Such as `messages[2].content`; of the object itself without a key."""
        return f"{self._place}.{key}" if self._place and key else self._place or key

    def error(self, key: str, problem: str) -> BadRequestError:
        """problem: goes on after the field's place."""
        place = self.place(key)
        return BadRequestError(f"{place} {problem}", place)

    def value(self, key: str) -> Any:
        return self._values.get(key)

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def text(self, key: str) -> str | None:
        match self._values.get(key):
            case None:
                return None
            case str() as text:
                return whole_characters(text)
            case value:
                raise self._kind_error(key, value, "text")

    def name(self, key: str) -> str:
        """A text that must be there."""
        text = self.text(key)
        if not text:
            raise self.error(key, "is missing. Send a name.")
        return text

    def flag(self, key: str) -> bool | None:
        value = self._values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self._kind_error(key, value, "true or false")

    def number(self, key: str, least: float, most: float) -> float | None:
        """A number in this range, both ends included."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._kind_error(key, value, "a number")
        if not least <= value <= most:
            raise self.error(key, f"is out of range. Send a number from {least:g} to {most:g}.")
        return float(value)

    def whole_number(self, key: str) -> int | None:
        """Of any size; some clients write 8192.0."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._kind_error(key, value, "a whole number")
        if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
            raise self.error(key, "is not a whole number. Send one.")
        return int(value)

    def object(self, key: str) -> Fields | None:
        match self._values.get(key):
            case None:
                return None
            case Mapping() as values:
                return Fields(values, self.place(key))
            case value:
                raise self._kind_error(key, value, "an object")

    def items(self, key: str) -> list[Any]:
        """The items of a list; none if it is not there."""
        match self._values.get(key):
            case None:
                return []
            case list() as items:
                return items
            case value:
                raise self._kind_error(key, value, "a list")

    def objects(self, key: str) -> Iterator[Fields]:
        """A list whose items are objects."""
        for index, item in enumerate(self.items(key)):
            if not isinstance(item, Mapping):
                raise self._kind_error(f"{key}[{index}]", item, "an object")
            yield Fields(item, self.place(f"{key}[{index}]"))

    def texts(self, key: str) -> list[str]:
        """A list whose items are texts."""
        items = self.items(key)
        fields = Fields({f"{key}[{index}]": item for index, item in enumerate(items)}, self._place)
        return [fields.text(f"{key}[{index}]") or "" for index in range(len(items))]

    def schema(self, key: str) -> str:
        """An object as JSON text, its keys in the client's order; `{}` if it is not there."""
        value = self._values.get(key)
        if value is None:
            return "{}"
        if not isinstance(value, Mapping):
            raise self._kind_error(key, value, "a JSON schema, which is an object")
        return self._written(key, value, sorts_keys=False)

    def arguments(self, key: str) -> str:
        """A JSON object, or text that is one, always in the same spelling: clients parse arguments and write them
        anew."""
        value = self._values.get(key)
        if isinstance(value, str):
            try:
                value = json.loads(value.strip() or "{}")
            except (ValueError, RecursionError):
                raise self.error(
                    key, "is not valid JSON. Send the arguments of the call as a JSON object."
                ) from None
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self._kind_error(key, value, "the arguments of the call as a JSON object")
        return self._written(key, value, sorts_keys=True)

    def _written(self, key: str, value: Mapping[str, Any], sorts_keys: bool) -> str:
        try:
            # In ASCII, which spells out halves of characters too.
            return json.dumps(value, separators=(",", ":"), sort_keys=sorts_keys, allow_nan=False)
        except (ValueError, RecursionError):
            raise self.error(
                key, "is nested too deeply, or has a number that JSON cannot write. Send a simpler object."
            ) from None

    def _kind_error(self, key: str, value: Any, expected: str) -> BadRequestError:
        return self.error(key, f"is {_kind(value)}. Send {expected}.")


def whole_characters(text: str) -> str:
    """Without halves of characters: clients that cut texts send them, and no encoding has bytes for them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"
