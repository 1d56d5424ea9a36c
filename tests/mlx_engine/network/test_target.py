"""How many masks a pass builds."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from mlx_engine.network import kv_cache
from mlx_engine.network.kv_cache import FullCache, SlidingCache
from mlx_engine.network.mlx_lm_gemma4 import create_causal_mask
from mlx_engine.network.target import Gemma4Target
from tests.fakes import tiny


def count_masks(target: Gemma4Target, monkeypatch: pytest.MonkeyPatch, tokens: int, method: str) -> list[str]:
    """The caches asked for a mask, and the arrays built, by one pass past the window."""
    cache = target.new_cache()
    target.forward(mx.ones((1, 2 * tiny.WINDOW), mx.int32), cache)
    built: list[str] = []
    for kind in (FullCache, SlidingCache):
        make_mask = kind.make_mask

        def counted(self: Any, rows: int, make_mask: Any = make_mask, kind: type = kind) -> Any:
            built.append(kind.__name__)
            return make_mask(self, rows)

        monkeypatch.setattr(kind, "make_mask", counted)
    create = create_causal_mask

    def created(*arguments: Any, **settings: Any) -> mx.array:
        built.append("array")
        mask: mx.array = create(*arguments, **settings)
        return mask

    monkeypatch.setattr(kv_cache, "create_causal_mask", created)
    getattr(target, method)(mx.ones((1, tokens), mx.int32), cache)
    return sorted(built)


@pytest.mark.parametrize("method", ["forward", "read"])
@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_a_pass_builds_one_mask_per_layer_type(layout: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tiny.target(layout)
    assert len(target.new_cache().layers) > 2, "several layers share a mask"
    assert count_masks(target, monkeypatch, 5, method) == ["FullCache", "SlidingCache", "array"]


def test_a_plain_round_builds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "array" not in count_masks(tiny.target("31b"), monkeypatch, 1, "forward")
