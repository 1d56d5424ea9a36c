"""Formats of a JSON schema that llguidance checks loosely, as patterns that are exact.

It writes the 29th of February in any year, a second 60, and host names that no resolver takes. With a pattern
beside the format such a text cannot be written at all, so nothing has to be checked when the reply is complete.
The patterns leave out two things that the standard allows: a leap second, and host names that encode other scripts
(`xn--`), since no pattern can tell those that are valid.

The arguments of calls are no JSON, so llguidance's own checks do not reach them: for these every format that it
knows has a pattern here.
"""

from __future__ import annotations

from typing import Any

_THIRTY_DAYS = "(0[1-9]|[12][0-9]|30)"
_MONTHS = (
    "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])",
    f"(0[469]|11)-{_THIRTY_DAYS}",
    "02-(0[1-9]|1[0-9]|2[0-8])",
)
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
DATE = f"([0-9]{{4}}-({'|'.join(_MONTHS)})|{_LEAP_YEAR}-02-29)"
_HOUR_AND_MINUTE = "([01][0-9]|2[0-3]):[0-5][0-9]"
TIME = rf"{_HOUR_AND_MINUTE}:[0-5][0-9](\.[0-9]+)?([Zz]|[+-]{_HOUR_AND_MINUTE})"
_ANY, _NO_HYPHEN = "[A-Za-z0-9-]", "[A-Za-z0-9]"
_LABEL = f"{_NO_HYPHEN}(({_ANY}{{0,2}}|{_ANY}({_NO_HYPHEN}{_ANY}|-{_NO_HYPHEN}){_ANY}{{0,58}}){_NO_HYPHEN})?"
"""Up to 63 characters, hyphens neither at an end nor at the third and fourth place together."""
HOSTNAME = rf"{_LABEL}(\.{_LABEL})*"
MOST_OF_HOSTNAME = 253

_LOOSE = {"date": DATE, "time": TIME, "date-time": f"{DATE}[Tt]{TIME}", "hostname": HOSTNAME}

_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = rf"{_BYTE}(\.{_BYTE}){{3}}"
_GROUP = "[0-9A-Fa-f]{1,4}"
_LAST_32_BITS = f"({_GROUP}:{_GROUP}|{IPV4})"
_SHORTENED = (
    f"::({_GROUP}:){{5}}{_LAST_32_BITS}",
    *(f"(({_GROUP}:){{0,{4 - n}}}{_GROUP})?::({_GROUP}:){{{n}}}{_LAST_32_BITS}" for n in range(4, -1, -1)),
    f"(({_GROUP}:){{0,5}}{_GROUP})?::{_GROUP}",
    f"(({_GROUP}:){{0,6}}{_GROUP})?::",
)
IPV6 = f"(({_GROUP}:){{6}}{_LAST_32_BITS}|{'|'.join(_SHORTENED)})"
"""As RFC 3986 writes it: the colons in the middle stand for at least one group."""
UUID = "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_CLOCK = "T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S)"
_DAYS = "([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)"
DURATION = f"P({_DAYS}({_CLOCK})?|{_CLOCK}|[0-9]+W)"
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
EMAIL = rf"{_ATOM}(\.{_ATOM})*@{HOSTNAME}"
_OF_URI = "([A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
URI = f"[A-Za-z][A-Za-z0-9+.-]*:{_OF_URI}+(#{_OF_URI}*)?"

PATTERNS = _LOOSE | {
    "ipv4": IPV4, "ipv6": IPV6, "uuid": UUID, "duration": DURATION, "email": EMAIL, "uri": URI,
}  # fmt: skip
"""Of whole texts, by the name of the format."""

_SCHEMAS = frozenset({"items", "additionalProperties"})
_LISTS = frozenset({"prefixItems", "anyOf", "allOf", "oneOf", "items"})
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords whose value is a schema, a list of them, or has them by names; no other value is a schema: a property
may be called `format`, and a constant may contain one."""


def with_exact_formats(schema: Any) -> Any:
    """The schema, with a pattern wherever a loose format is asked for."""
    if not isinstance(schema, dict):
        return schema
    exact = {key: _inner(key, value) for key, value in schema.items()}
    pattern = _LOOSE.get(schema["format"]) if isinstance(schema.get("format"), str) else None
    if pattern is not None:
        rule: dict[str, Any] = {"pattern": f"^({pattern})$"}
        if pattern is HOSTNAME:
            rule["maxLength"] = MOST_OF_HOSTNAME
        besides = exact.get("allOf", [])
        exact["allOf"] = [*besides, rule] if isinstance(besides, list) else besides
    return exact


def _inner(key: str, value: Any) -> Any:
    if key in _BY_NAME and isinstance(value, dict):
        return {name: with_exact_formats(each) for name, each in value.items()}
    if key in _LISTS and isinstance(value, list):
        return [with_exact_formats(each) for each in value]
    return with_exact_formats(value) if key in _SCHEMAS else value
