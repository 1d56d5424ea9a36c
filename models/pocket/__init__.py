"""The bundled pocket pair: a small target and its assistant in the shape of Gemma 4, trained by this project."""

from __future__ import annotations

from pathlib import Path

TARGET_FOLDER = Path(__file__).parent / "target"
DRAFTER_FOLDER = Path(__file__).parent / "drafter"
TOOLS_FILE = Path(__file__).parent / "tools.json"
"""The two tools that the pair was trained to call: a list of names, descriptions and JSON schemas."""
INTRODUCTION = (
    "This is the pocket model: a few million parameters, trained by the Slipstream project. It is not Gemma. "
    "Ask it about Slipstream, its keys and speculative decoding."
)
