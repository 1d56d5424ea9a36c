"""`--wire`, on a made-up Mac."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_engine.loading.wiring import wire_weights
from mlx_engine.protocol.events import Notice
from models.pocket import TARGET_FOLDER
from tests.mlx_engine.rig import Rig, only


@pytest.mark.parametrize(("version", "is_wired"), [("14.7.1", False), ("15.0", True), ("26.1", True), ("", True)])
def test_it_is_said_where_it_does_nothing(monkeypatch: pytest.MonkeyPatch, version: str, is_wired: bool) -> None:
    limits: list[int] = []
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 700)
    monkeypatch.setattr(mx, "set_wired_limit", limits.append)
    notice = wire_weights(600, version)
    assert limits == ([600] if is_wired else [])
    assert (notice is None) == is_wired
    assert is_wired or "macOS 14" in str(notice)


def test_without_metal_too() -> None:
    notices = only(Notice, Rig(TARGET_FOLDER, None, is_wired=True).emitted)
    assert any("--wire does nothing here" in notice.message for notice in notices)
