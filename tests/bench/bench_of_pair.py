"""One pair, loaded on every side in one BLAS mode, and replies by name: what the rows measure with."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.bench.prompts import bundled_prompts
from tests.bench.environment import child_environment
from tests.bench.pairs import PairFolders
from tests.bench.sides import Side

FORCED_ACCEPTANCE = 0.75
"""Of each draft by itself; what assistants of the family are reported to reach on ordinary text."""
QUESTIONS = (
    "How do I turn drafting off?",
    "What is speculative decoding?",
    "How does the target check the drafts?",
    "What does the acceptance gauge show?",
    "How do I stop a reply?",
    "What is a residual?",
)
"""Like what the pocket pair was trained on."""
CORPUS = Path(__file__).parents[2] / "models" / "pocket" / "training" / "corpus"
HELD_OUT = 24
LISTS = (
    "List all keys and what each of them does.",
    "List the gauges, one a line.",
    "Which commands are there?",
    "List the models.",
    "What settings are there?",
    "Which keys are there on code?",
    "What can I type behind a slash?",
    "List everything that is kept on disk.",
    "What are the sizes of the model?",
    "Name all gauges and say what they mean.",
    "What are all the flags of run?",
    "List the ways to draft.",
)
BESIDE_THE_POINT = (
    "The quick brown fox jumps over the lazy dog and then what happens next?",
    "Write a poem about rain on an old harbour town.",
    "Who won the football match yesterday, and why?",
    "How long do I boil an egg for breakfast in the mountains?",
    "Tell me a story about a lighthouse keeper and his three cats.",
    "What should I pack for two weeks of walking in Iceland?",
    "Translate good morning into five languages.",
    "Why is the sea salty and the rain not?",
    "Write a letter to my landlord about the broken heating.",
    "What is the difference between a crow and a raven?",
    "Explain the rules of chess to a child.",
    "Who painted the ceiling, and how long did it take him?",
)


def texts_by_kind() -> dict[str, Sequence[str]]:
    """What is asked, from often to hardly ever as the drafter expects it."""
    rewriting = [prompt.messages[-1].text for prompt in bundled_prompts(is_pocket=True, kinds=["rewriting"])]
    return {
        "questions": held_out_questions(),
        "lists": LISTS,
        "rewriting and quoting": rewriting,
        "beside the point": BESIDE_THE_POINT,
    }


def held_out_questions() -> list[str]:
    """From all over what the pocket pair was trained on, in words that were kept from it."""
    topics = [topic for path in sorted(CORPUS.glob("*.yaml")) for topic in yaml.safe_load(path.read_text("utf-8"))]
    asked = [topic["held_out"][0] for topic in topics if topic.get("held_out")]
    return asked[:: len(asked) // HELD_OUT][:HELD_OUT]


Reply = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Clock:
    """Which of the facts of a reply count as time."""

    decoding: str
    first_token: str


class PairBench:
    """The sides of one pair. Prompts are token ids, the same on each."""

    def __init__(
        self,
        pair: PairFolders,
        openblas: Path | None,
        peers: Path,
        by_processor_time: bool,
        is_compiled: bool | None,
        before: Path | None = None,
    ) -> None:
        """before: a checkout of an earlier commit, to measure against."""
        self.pair = pair
        self.clock = Clock("cpu_s", "ttft_cpu_s") if by_processor_time else Clock("decode_s", "ttft_s")
        self.blas = "OpenBLAS" if openblas else "reference"
        environment = child_environment(openblas)
        self.ours = Side("Slipstream", Path(sys.executable), "tests.bench.ours", environment)
        self.mlx_lm = Side("mlx-lm", peers, "tests.bench.mlx_lm_peer", environment)
        self.mlx_vlm = Side("mlx-vlm", peers, "tests.bench.mlx_vlm_peer", environment)
        self.before: Side | None = None
        if before:
            of_before = environment | {"PYTHONPATH": str(before)}
            self.before = Side("Slipstream before", Path(sys.executable), "tests.bench.ours", of_before, before)
        self._sides = [self.ours, self.mlx_lm, self.mlx_vlm, *([self.before] if self.before else [])]
        asked = {"target": str(pair.target), "drafter": str(pair.drafter), "is_compiled": is_compiled}
        facts = [side.ask("load", **asked) for side in self._sides]
        self.weights_bytes = int(facts[0]["weights_bytes"])
        self.vocab_size = int(facts[0]["vocab_size"])
        self.stop: list[int] = []
        self._scripts: dict[tuple[str, int, int], list[int]] = {}

    def close(self) -> None:
        """End the sides."""
        for side in self._sides:
            side.close()

    def prompts(self, count: int, texts: Sequence[str] = QUESTIONS) -> list[list[int]]:
        """The first texts with the template around them; of a random pair, as many runs of ids."""
        if self.pair.is_random:
            return [[(37 * at + 101 * n) % (self.vocab_size - 10) + 10 for at in range(48)] for n in range(count)]
        rendered = [self.ours.ask("render", messages=[["user", text]]) for text in texts[:count]]
        self.stop = rendered[0]["stop"]
        return [each["ids"] for each in rendered]

    def reply(self, side: Side, prompt: list[int], length: int | str, tokens: int, **settings: Any) -> Reply:
        """One reply. On a random pair drafts are by the script, at temperature 0."""
        if length and self.pair.is_random and "script" not in settings:
            settings["script"] = self.script(side, prompt, tokens)
        return side.ask(
            "generate",
            prompt=prompt,
            length=length,
            max_tokens=tokens,
            stop=self.stop,
            **{"temperature": 0.0} | settings,
        )

    def replies(
        self, side: Side, prompts: Sequence[list[int]], length: int | str, tokens: int, **settings: Any
    ) -> Reply:
        """One reply per prompt, added up."""
        total: Reply = {}
        for number, prompt in enumerate(prompts):
            seed = {"seed": settings["seed"] + number} if "seed" in settings else {}
            reply = self.reply(side, prompt, length, tokens, **settings | seed)
            reply.pop("token_ids")
            total = {name: total.get(name, 0) + value for name, value in reply.items()}
        return total

    def rate(self, *arguments: Any, **settings: Any) -> Callable[[], float]:
        """A run that gives tokens/s of `replies`."""

        def run() -> float:
            total = self.replies(*arguments, **settings)
            return float(total["tokens"] / total[self.clock.decoding])

        return run

    def script(
        self, side: Side, prompt: list[int], tokens: int, acceptance: float = FORCED_ACCEPTANCE
    ) -> list[int]:
        """What the side says to the prompt, wrong at the same places on every side."""
        key = (side.name, hash(tuple(prompt)), tokens)
        if key not in self._scripts:
            said = self.reply(side, prompt, 0, tokens)["token_ids"]
            self._scripts[key] = said + [0] * (tokens + 32 - len(said))
        chances = random.Random(5)
        return [
            token if chances.random() < acceptance else (token + 1) % self.vocab_size
            for token in self._scripts[key]
        ]
