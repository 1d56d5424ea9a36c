"""`python -m models.pocket.training.report`: measures what the pocket pair can do and writes report.md.

Answers to held-out questions, acceptance by position, and speed by draft length, with and without OpenBLAS
instead of the reference BLAS of MLX's Linux wheel. Speeds are ratios within one run: every question is answered
at every length, up and down again, so that a machine that slows down affects all lengths alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_engine.engine import Engine
from mlx_engine.protocol import events
from mlx_engine.protocol.stats import BaselineSpeed, ReplyStats
from mlx_engine.speculation.steering import ReplyControl
from mlx_engine.text.tool_format import Mark, written_call
from models import pocket
from models.pocket.training.evaluate import held_out_metrics
from models.pocket.training.lessons import Lesson, load_corpus
from models.pocket.training.target_config import load_target
from models.pocket.training.tokenizer import load_tokenizer
from models.pocket.training.tool_lessons import ToolLessons, load_tools, spelled
from models.pocket.training.turns import Turn

LENGTHS = (0, 1, 2, 3, 4, 5, 6, 8, 12)
SHOWN_LENGTH = 4
"""For acceptance by position: the chat's default draft length."""
FACTUAL_QUESTIONS = 50
CALLS, CALLS_SEED = 20, 20260504
"""Requests for each tool."""
SPEED_QUESTIONS = 16
LONGEST_REPLY = 160
REPORT = Path(pocket.__file__).with_name("report.md")


@dataclass(frozen=True)
class PocketReply:
    """One answer and its figures."""

    text: str
    token_ids: tuple[int, ...]
    calls: tuple[events.ToolCall, ...]
    stats: ReplyStats


class PocketRunner:
    """Asks the pair questions, in this process."""

    def __init__(self, drafter: Path) -> None:
        self._heard: list[events.Event] = []
        self._engine = Engine(events.Load(str(pocket.TARGET_FOLDER), (str(drafter),)), self._heard.append)

    def ask(self, question: str, draft_length: int, tools: tuple[events.Tool, ...] = ()) -> PocketReply:
        """The greedy reply, with one draft length in every round."""
        self._heard.clear()
        request = events.Generate(
            id=1,
            messages=(events.Message("user", question),),
            sampling=events.SamplingOptions(temperature=0),
            draft_length=draft_length,
            max_tokens=LONGEST_REPLY,
            tools=tools,
            measures_baseline=False,
        )
        self._engine.generate(request, ReplyControl(draft_length))
        rounds = [event for event in self._heard if isinstance(event, events.Round)]
        stats = ReplyStats(BaselineSpeed())
        for done in rounds:
            stats.add(done)
        ids = tuple(id for done in rounds for id in done.token_ids)
        calls = tuple(call for done in rounds for call in done.calls)
        return PocketReply("".join(done.text for done in rounds), ids, calls, stats)


def measure_answers(runner: PocketRunner) -> dict[str, Any]:
    """Correct answers to held-out factual questions, acceptance, and whether drafting changed a token."""
    facts = load_corpus().held_out("fact")
    chosen = facts[:: max(1, len(facts) // FACTUAL_QUESTIONS)][:FACTUAL_QUESTIONS]
    wrong, drafted, accepted = [], [0] * SHOWN_LENGTH, [0] * SHOWN_LENGTH
    tokens = rounds = changed = 0
    for question, entry in chosen:
        reply, plain = runner.ask(question, SHOWN_LENGTH), runner.ask(question, 0)
        changed += reply.token_ids != plain.token_ids
        if not is_right(reply.text, entry):
            wrong.append((question, reply.text))
        for position in range(SHOWN_LENGTH):
            drafted[position] += reply.stats.drafted_by_position[position]
            accepted[position] += reply.stats.accepted_by_position[position]
        tokens += reply.stats.generated_tokens
        rounds += reply.stats.rounds
    return {
        "asked": len(chosen),
        "right": len(chosen) - len(wrong),
        "wrong": wrong,
        "acceptance": sum(accepted) / sum(drafted),
        "by_position": [a / d for a, d in zip(accepted, drafted)],
        "tokens_per_round": tokens / rounds,
        "changed": changed,
        "loss": held_out_loss(),
        "calls": {tool.name: right_calls(runner, tool.name) for tool in load_tools()},
    }


def right_calls(runner: PocketRunner, name: str) -> int:
    """How many of `CALLS` held-out requests for a tool get the right call, and nothing else."""
    rng, lessons = random.Random(CALLS_SEED), ToolLessons(is_held_out=True)
    return sum(is_called(runner, lessons.draw(rng, [name])) for _ in range(CALLS))


def is_called(runner: PocketRunner, turn: Turn) -> bool:
    """Whether the reply to the question of a turn is its call."""
    (asked, _), (called, _), *_ = turn
    question = asked.removeprefix("<|turn>user\n").partition("<turn|>")[0]
    reply = runner.ask(question, SHOWN_LENGTH, load_tools())
    return called == "".join(spelled(written_call(call)) for call in reply.calls) + Mark.RESULT.value


def held_out_loss() -> float:
    """Cross entropy per answer token over all held-out questions."""
    model, tokenizer = load_target(pocket.TARGET_FOLDER), load_tokenizer(pocket.TARGET_FOLDER)
    return held_out_metrics(model, tokenizer, load_corpus())["loss"]


def is_right(text: str, entry: Lesson) -> bool:
    """Whether an answer contains every key, command or number that it has to."""
    return all(must in text for must in entry.must)


def measure_speed(runner: PocketRunner) -> dict[str, float]:
    """Tokens per second by draft length."""
    held_out = load_corpus().held_out()
    questions = [question for question, _ in held_out[:: len(held_out) // SPEED_QUESTIONS][:SPEED_QUESTIONS]]
    tokens, seconds = dict.fromkeys(LENGTHS, 0), dict.fromkeys(LENGTHS, 0.0)
    for question in questions:
        for length in (*LENGTHS, *reversed(LENGTHS)):
            stats = runner.ask(question, length).stats
            tokens[length] += stats.generated_tokens
            seconds[length] += stats.decode_s
    return {str(length): tokens[length] / seconds[length] for length in LENGTHS}


def measured_in_child(what: str, drafter: Path, openblas: Path | None) -> Any:
    """One measurement, made in a child process with or without OpenBLAS."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    if openblas:
        environment["LD_PRELOAD"] = str(openblas)
    command = [sys.executable, "-m", "models.pocket.training.report", "--drafter", str(drafter), "--measure", what]
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def write_report(answers: dict[str, Any], speeds: dict[str, dict[str, float]]) -> str:
    """The report's text."""
    positions = " | ".join(f"{share:.0%}" for share in answers["by_position"])
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )
    lines = [
        "# What the pocket pair can do",
        "",
        "By `python -m models.pocket.training.report`: greedy, float32, questions that training never saw.",
        f"Machine: {machine}.",
        "",
        f"- Factual questions answered with the right key, command or number: "
        f"**{answers['right']} of {answers['asked']}**",
        f"- Acceptance at {SHOWN_LENGTH} drafts: **{answers['acceptance']:.2f}**; "
        f"tokens per round: **{answers['tokens_per_round']:.2f}**",
        f"- Replies in which drafting changed a token: {answers['changed']} of {answers['asked']}",
        f"- Loss per token of held-out answers: {answers['loss']:.3f}",
        "- Requests that got the right call of a tool: "
        + ", ".join(f"`{name}` **{right} of {CALLS}**" for name, right in answers["calls"].items()),
        "",
        "| acceptance at position | " + " | ".join(map(str, range(1, SHOWN_LENGTH + 1))) + " |",
        "|---|" + "---|" * SHOWN_LENGTH,
        f"| | {positions} |",
        "",
        "Decoding speed, tokens/s (and against length 0):",
        "",
        "| draft length | " + " | ".join("off" if n == 0 else str(n) for n in LENGTHS) + " |",
        "|---|" + "---|" * len(LENGTHS),
    ]
    for name, by_length in speeds.items():
        plain = by_length["0"]
        cells = (f"{pace:.0f} ({pace / plain:.2f}×)" for pace in by_length.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the pocket pair and write report.md.")
    parser.add_argument("--openblas", type=Path, help="libblas.so.3 of OpenBLAS (Debian: libopenblas0-pthread)")
    parser.add_argument(
        "--drafter",
        type=Path,
        default=pocket.DRAFTER_FOLDER,
        help="another one to measure, without writing report.md",
    )
    parser.add_argument("--measure", choices=["answers", "speed"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        measure = measure_answers if options.measure == "answers" else measure_speed
        print(json.dumps(measure(PocketRunner(options.drafter))))
        return
    speeds = {"reference BLAS": measured_in_child("speed", options.drafter, None)}
    if options.openblas:
        speeds["OpenBLAS"] = measured_in_child("speed", options.drafter, options.openblas)
    answers = measured_in_child("answers", options.drafter, options.openblas)
    report = write_report(answers, speeds)
    if options.drafter == pocket.DRAFTER_FOLDER:
        REPORT.write_text(report)
    print(report)
    for question, text in answers["wrong"]:
        print(f"wrong: {question}\n   {text}")


if __name__ == "__main__":
    main()
