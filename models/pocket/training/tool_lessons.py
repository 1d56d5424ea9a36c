"""Exercises in calling tools: a question, the call, its result, and a sentence with what the result says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence

from mlx_engine.protocol.events import Tool, ToolCall
from mlx_engine.text.tool_declaration import declaration
from mlx_engine.text.tool_format import Mark, Parts, written_call, written_result
from models.pocket import TOOLS_FILE
from models.pocket.training.turns import Turn
from models.pocket.training.wordings import load_wordings

MEMORY, DRAFT_LENGTH = "how_much_memory", "set_draft_length"
LONGEST_DRAFT = 16
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen",
)  # fmt: skip
NUMBER_IN_WORDS_SHARE, OFF_SHARE, OTHER_LENGTH_SHARE, FAILURE_SHARE = 0.25, 0.12, 0.15, 0.08
MEMORY_RESULTS = (
    "{}", "{} in use", "memory in use: {}", '{{"memory": "{}"}}', "The engine uses {}.", "Used: {}", "{} used",
)  # fmt: skip
LENGTH_RESULTS = (
    "ok", "done", "{}", "draft length {}", "draft length: {}", '{{"draft_length": {}}}', "The draft length is {}.",
)  # fmt: skip
FAILURES = (
    "the engine does not answer", "no drafter is loaded", "not now", "the tool is busy", "a reply is running",
    "no model is loaded", "the engine has stopped", "this needs a drafter",
)  # fmt: skip


def load_tools() -> tuple[Tool, ...]:
    """The tools that the pocket model can call."""
    raw = json.loads(TOOLS_FILE.read_text())
    return tuple(Tool(each["name"], each["description"], json.dumps(each["parameters"])) for each in raw)


def spelled(parts: Parts) -> str:
    """Parts as text in which marks are spelled out."""
    return "".join(part.value if isinstance(part, Mark) else part for part in parts)


def declared(tools: Iterable[Tool]) -> str:
    """What the system turn says of tools."""
    return "".join(spelled(declaration(tool)) for tool in tools)


class ToolLessons:
    """Draws turns with a call of a tool in them."""

    def __init__(self, is_held_out: bool = False) -> None:
        """is_held_out: in wordings that training never sees."""
        self._wordings = load_wordings("tools")
        self._is_held_out = is_held_out

    def draw(self, rng: random.Random, names: Sequence[str]) -> Turn:
        """A turn that calls one of the tools of these names."""
        if rng.choice(names) == MEMORY:
            return self._memory(rng)
        return self._draft_length(rng)

    def _memory(self, rng: random.Random) -> Turn:
        most = rng.choice((9, 99))
        gigabytes = f"{rng.uniform(0.1, most):.1f} GB", f"{rng.randint(1, most)} GB"
        amount = rng.choice((*gigabytes, f"{rng.randint(1, 999)} MB"))
        result = rng.choice(MEMORY_RESULTS).format(amount)
        return self._turn(rng, MEMORY, "", (MEMORY, {}), (result, f"The engine uses {amount} of memory."))

    def _draft_length(self, rng: random.Random) -> Turn:
        is_off = rng.random() < OFF_SHARE
        asked = 0 if is_off else rng.randint(0, LONGEST_DRAFT)
        number = NUMBERS[asked] if rng.random() < NUMBER_IN_WORDS_SHARE else str(asked)
        result, length = rng.choice(LENGTH_RESULTS), asked
        if "{}" in result and rng.random() < OTHER_LENGTH_SHARE:
            length = rng.randint(0, LONGEST_DRAFT)
        kind = "draft_off" if is_off else DRAFT_LENGTH
        call = (DRAFT_LENGTH, {"length": asked})
        return self._turn(rng, kind, number, call, (result.format(length), f"The draft length is now {length}."))

    def _turn(
        self,
        rng: random.Random,
        kind: str,
        number: str,
        call: tuple[str, dict[str, int]],
        outcome: tuple[str, str],
    ) -> Turn:
        """call: name and arguments. outcome: the result, and the sentence about it."""
        question = self._wordings[kind].draw(rng, self._is_held_out).format(n=number)
        if rng.random() < FAILURE_SHARE:
            failure = rng.choice(FAILURES)
            outcome = f"error: {failure}", f"That did not work: {failure}."
        name, arguments = call
        result, sentence = outcome
        opens = Mark.RESULT.value
        return (
            (f"<|turn>user\n{question}<turn|>\n<|turn>model\n", False),
            (spelled(written_call(ToolCall(name, json.dumps(arguments)))) + opens, True),
            (spelled(written_result(name, result)).removeprefix(opens), False),
            (f"{sentence}<turn|>", True),
        )
