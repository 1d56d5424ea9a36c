"""What is taken from mlx-lm's Gemma 4 classes, imported without the rest of mlx-lm.

Importing the whole package takes over a second (it imports transformers), changes the process's limit on open
files, and fails where that limit is low already. Its modules are therefore imported from a package that is only a
path.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

__all__ = ["create_causal_mask", "gemma4", "gemma4_text"]


@contextmanager
def _only_a_path(name: str) -> Iterator[None]:
    """Lets modules of the package be imported without the package, which can still be imported later."""
    spec = find_spec(name)
    if name in sys.modules or spec is None or spec.submodule_search_locations is None:
        yield
        return
    bare = ModuleType(name)
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = bare
    try:
        yield
    finally:
        del sys.modules[name]


with _only_a_path("mlx_lm"):
    from mlx_lm.models import gemma4, gemma4_text
    from mlx_lm.models.base import create_causal_mask
