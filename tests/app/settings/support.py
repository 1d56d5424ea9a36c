"""Helpers of the settings tests."""

from __future__ import annotations

from pathlib import Path

from app.settings.effective import EffectiveSettings, read_settings
from app.settings.errors import SettingsError


def holds(path: Path, text: str = "", **given: object) -> EffectiveSettings:
    """The settings that apply with `text` in the file and an empty environment."""
    path.write_text(text, encoding="utf-8")
    return read_settings(path=path, **{"environment": {}, **given})  # type: ignore[arg-type]


def refusal(path: Path, text: str = "", **given: object) -> str:
    """The error message for `text` in the file."""
    try:
        holds(path, text, **given)
    except SettingsError as error:
        return str(error)
    raise AssertionError(f"not refused: {text!r}")
