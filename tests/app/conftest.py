"""Tests of the app see every colour, whatever terminal they run in."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _every_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
