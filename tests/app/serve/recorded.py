"""Requests of real clients: their structures in `clients/`, with made-up texts of the recorded lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "clients"
EFFORTS = {3: "low", 6: "medium"}


def recorded_requests(client: str) -> list[tuple[str, dict[str, Any]]]:
    """Path and body of each request, in the order sent."""
    requests = json.loads((FOLDER / f"{client}.json").read_text(encoding="utf-8"))
    return [(request["path"], _filled(request["body"])) for request in requests]


def clients() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def _filled(value: Any, key: str = "") -> Any:
    match value:
        case dict():
            return {name: _filled(inner, name) for name, inner in value.items()}
        case list():
            return [_filled(inner, key) for inner in value]
        case str() if value.startswith("str:"):
            return _text(int(value.removeprefix("str:")), key)
        case _:
            return value


def _text(length: int, key: str) -> str:
    match key:
        case "arguments":
            return json.dumps({"p0": "x" * (length - 10)})
        case "reasoning_effort":
            return EFFORTS[length]
        case "image_url":
            return "data:image/png;base64,".ljust(length, "A")
        case _:
            return ("word " * (length // 5 + 1))[:length]
