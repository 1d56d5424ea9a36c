"""What the tests of the settings share."""

from __future__ import annotations

from pathlib import Path

from app.settings.effective import EffectiveSettings, read_settings
from app.settings.errors import SettingsError


def holds(path: Path, text: str = "", **given: object) -> EffectiveSettings:
    """What holds with `text` in the file and nothing in the environment."""
    path.write_text(text, encoding="utf-8")
    return read_settings(path=path, **{"environment": {}, **given})  # type: ignore[arg-type]


def refusal(path: Path, text: str = "", **given: object) -> str:
    """The words with which it is refused."""
    try:
        holds(path, text, **given)
    except SettingsError as error:
        return str(error)
    raise AssertionError(f"not refused: {text!r}")
