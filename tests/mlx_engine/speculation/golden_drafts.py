"""Drafters whose references' drafts are known, run through the real loop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlx_engine.decode import DecodeOptions, Session, generate, prefill
from mlx_engine.loading.pair import LoadedPair, load_pair
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.protocol.events import Load
from mlx_engine.speculation.block_drafter import BlockDrafter
from mlx_engine.speculation.eagle_drafter import EagleDrafter
from mlx_engine.speculation.sampling import Distribution
from tests.mlx_engine.helpers import GREEDY, ScriptedControl, token_list
from tests.paths import GOLDEN

FOLDER = GOLDEN / "drafters"
GOLDENS: dict[str, Any] = {
    **json.loads((FOLDER / "goldens.json").read_text()),
    **json.loads((FOLDER / "more.json").read_text()),
}
NAMES = {name: name.split("-")[0] for name in GOLDENS}
"""What each is called by."""


def loaded(drafter: Path, bits: int | None = None) -> LoadedPair:
    return load_pair(Load(str(FOLDER / "target-12b"), (str(drafter),), bits), lambda event: None)


def drafter_in(pair: LoadedPair) -> BlockDrafter | EagleDrafter:
    assert pair.refusals == []
    (drafter,) = pair.drafters.values()
    assert isinstance(drafter, BlockDrafter | EagleDrafter)
    return drafter


def drafts_of(name: str, pair: LoadedPair | None = None) -> tuple[list[list[int]], list[int]]:
    """The drafts of the golden's rounds through the real loop, and the reply."""
    golden, pair = GOLDENS[name], pair or loaded(FOLDER / name)
    drafter, drafts = drafter_in(pair), list[list[int]]()
    prefix = PrefixCache(pair.target)
    prefix.resume([*golden["prompt_ids"], *golden["rounds"][0]["committed"]])
    propose = drafter.propose

    def seen(*asked: Any) -> Distribution:
        proposal = propose(*asked)
        drafts.append(token_list(proposal.tokens))
        return proposal

    drafter.propose = seen  # type: ignore[method-assign, assignment]
    tokens = len(golden["greedy"]) - 1
    options = DecodeOptions(GREEDY, frozenset(), tokens, ScriptedControl([golden["drafts"]]))
    done = list(generate(Session(pair.target, [drafter], prefix), options))
    assert all(made.drafter == NAMES[name] for made in done if made.drafted)
    return drafts[: len(golden["rounds"])], [token for made in done for token in made.token_ids]


def changed(tmp_path: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Path:
    folder = Path(shutil.copytree(FOLDER / name, tmp_path / name))
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def proposal(pair: LoadedPair, prefix: PrefixCache, tokens: Sequence[int]) -> list[int]:
    prefix.resume(tokens)
    drafter = drafter_in(pair)
    options = DecodeOptions(GREEDY, frozenset(), 9, ScriptedControl([4]))
    frontier = prefill(Session(pair.target, [drafter], prefix), options, lambda done_tokens: None)
    assert frontier
    return token_list(drafter.propose(tokens, frontier, prefix.cache, 5, GREEDY).tokens)
