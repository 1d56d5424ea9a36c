"""The shell's tests use the store's folder and clock."""

from __future__ import annotations

from tests.app.store.conftest import clock, folder

__all__ = ["clock", "folder"]
