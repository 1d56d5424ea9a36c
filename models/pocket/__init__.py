"""The pocket pair: a Gemma-4-shaped target and its assistant, trained by this project, in the box."""

from __future__ import annotations

from pathlib import Path

TARGET_FOLDER = Path(__file__).parent / "target"
DRAFTER_FOLDER = Path(__file__).parent / "drafter"
INTRODUCTION = (
    "This is the pocket model: a few million parameters, trained by the Slipstream project. It is not Gemma. "
    "Ask it about Slipstream, its keys and speculative decoding."
)
