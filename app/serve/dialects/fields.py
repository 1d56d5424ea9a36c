"""Fields of a body, each checked as it is read. A field that is null is as good as absent.

Everything here raises BadRequestError naming `where`, such as `messages[2].content`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.serve.errors import BadRequestError
from app.text.sanitise import cleaned

Json = Mapping[str, Any]
MAX_INTEGER = 2**31 - 1
"""Larger numbers mean the same: no limit."""


def text_of(value: Any, where: str) -> str:
    """None is an empty text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequestError(f"{where} must be a text.", where)
    return cleaned(value)


def object_of(value: Any, where: str) -> Json:
    """None is an empty object."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadRequestError(f"{where} must be an object.", where)
    return value


def list_of(value: Any, where: str) -> list[Any]:
    """None is an empty list."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRequestError(f"{where} must be a list.", where)
    return value


def flag_of(value: Any, where: str) -> bool:
    """None is false."""
    if value is not None and not isinstance(value, bool):
        raise BadRequestError(f"{where} must be true or false.", where)
    return bool(value)


def integer_in(value: Any, where: str, minimum: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise BadRequestError(f"{where} must be a whole number, {minimum} or more.", where)
    return min(value, MAX_INTEGER)


def number_in(value: Any, where: str, minimum: float, maximum: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
        raise BadRequestError(f"{where} must be a number from {minimum} to {maximum}.", where)
    return float(value)


def json_text(value: Json, where: str, is_sorted: bool = False) -> str:
    """is_sorted: the order of keys means nothing."""
    try:
        return json.dumps(value, sort_keys=is_sorted, allow_nan=False)
    except (ValueError, RecursionError):
        raise BadRequestError(f"{where} is not valid JSON, or nested too deep.", where) from None
