"""How exercises are asked for: templates for training, and others that training never sees."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import yaml

EXERCISES = Path(__file__).parent / "exercises"


@dataclass(frozen=True, slots=True)
class Wordings:
    """Templates of one kind of exercise."""

    ask: tuple[str, ...]
    held_out: tuple[str, ...]

    def draw(self, rng: random.Random, is_held_out: bool) -> str:
        """One template. is_held_out: of those that training never sees."""
        return rng.choice(self.held_out if is_held_out else self.ask)


def load_wordings(name: str) -> dict[str, Wordings]:
    """Kind -> templates, from exercises/NAME.yaml."""
    raw = yaml.safe_load((EXERCISES / f"{name}.yaml").read_text())
    return {kind: Wordings(tuple(of["ask"]), tuple(of["held_out"])) for kind, of in raw.items()}
