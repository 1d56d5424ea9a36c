"""`slipstream bench` on the command line: what is typed becomes a plan, or a comparison of two runs."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from app.bench.plan import MOST_PASSES, BenchPlan, make_cases, to_name, to_setting
from app.bench.prompts import BUNDLED_KINDS, BenchPrompt, bundled_prompts, read_prompts, stored_prompts
from app.bench.results import OFF, Context, Method, Mode
from app.core.chat_options import ChatOptions
from app.core.pair_choice import PairChoice
from app.store.chat_store import ChatStore
from app.system import places
from app.system.console import STANDARD_OUTPUT, say, say_json
from app.system.exit_codes import OK
from mlx_engine.client import EngineClient

CONTEXTS: tuple[Context, ...] = get_args(Context)
SETTINGS = ("off", "2", "4", "8", "16", "auto")
MINUTES = 10.0
MAX_TOKENS = 128
QUICK_SETTINGS = ("off", "2", "4", "8", "auto")
QUICK_MINUTES = 40 / 60
"""Leaves room for loading within a minute."""
QUICK_MAX_TOKENS = 32
FORMATS = {
    "json": "all that was measured as JSON",
    "csv": "the rows of all tables as CSV",
    "markdown": "the tables as Markdown",
    "svg": "a picture of speedup by draft length and kind",
}

ChoosePair = Callable[[], PairChoice]
ChooseOptions = Callable[[PairChoice], ChatOptions]


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Register `bench`; the caller adds the options that it shares with `run`, and sets `command`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure how much faster drafting is here, and which setting is best",
        description="Measure this pair on this machine: every draft setting in turns, there and back, so that "
        "heat and drift fall on all of them. Greedy, unless --sampled or a --temp above 0 is given.",
    )
    # fmt: off
    add = parser.add_argument
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--prompts", type=Path, metavar="FILE",
        help="your own prompts: one a line; with blank lines between, one a paragraph; or a JSON list of strings")
    asked.add_argument("--chats", action="store_true", help="replay what was asked last in the stored chats")
    asked.add_argument("--kinds", type=_names(BUNDLED_KINDS), default=BUNDLED_KINDS, metavar="KINDS",
        help=f"of the prompts in the box: {','.join(BUNDLED_KINDS)} (default: all)")
    add("--settings", type=_settings, metavar="LIST",
        help=f"off, 1..16, auto (default: {','.join(SETTINGS)}); --draft N is short for off,N")
    add("--contexts", type=_names(CONTEXTS), metavar="LIST",
        help="what comes before the prompt: short,medium,long (default: all three; your own prompts: short); "
        "medium and long for one prompt of every kind")
    add("--greedy", action="store_true", help="greedy replies, also beside --sampled")
    add("--sampled", action="store_true", help="replies as the model samples them, or --temp and the others say")
    add("--minutes", type=_number(0.01, 1e5), metavar="M", help=f"at most so long (default: {MINUTES:g})")
    add("--cool-down", type=_number(0, 3600), default=0.0, metavar="S", help="seconds of rest behind every block")
    add("--quick", action="store_true", help="one pass of one prompt of every kind, in less than a minute")
    for format, what in FORMATS.items():
        add(f"--{format}", nargs="?", const=STANDARD_OUTPUT, metavar="FILE",
            help=f"write {what}; without FILE to standard output, in place of the table")
    add("--force", action="store_true", help="replace the files named if they exist")
    add("--compare", nargs=2, type=Path, metavar=("A.json", "B.json"),
        help="measure nothing: say what changed between two runs and whether it is more than noise")
    # fmt: on
    return parser


def run(options: argparse.Namespace, choose_pair: ChoosePair, choose_options: ChooseOptions) -> int:
    """Measure or compare; the exit code. Raises SlipstreamError, ModelsError."""
    if options.compare:
        return _compare(options.compare, is_json=options.json == STANDARD_OUTPUT)
    # Every start of the program comes by this module; what measures is loaded by those who measure.
    from app.bench.measuring import BenchJob, load_of, measure
    from app.bench.outputs import Outputs

    outputs = Outputs(
        {name: getattr(options, name) for name in FORMATS if getattr(options, name)}, may_replace=options.force
    )
    pair = choose_pair()
    prompts, origin = _prompts(options, pair)
    chat_options = choose_options(pair)
    plan = _plan(options, prompts, chat_options)
    method = Method(
        settings=plan.settings,
        rule=chat_options.sampling.rule,
        max_tokens=plan.max_tokens,
        minutes=plan.limit_s / 60,
        cool_down_s=plan.cool_down_s,
        is_quick=options.quick,
        is_thinking=plan.is_thinking,
        prompts=origin,
    )
    job = BenchJob(pair, plan, method, outputs, places.bench_folder())
    return measure(job, EngineClient(load_of(pair), places.engine_log()))


def _compare(paths: Sequence[Path], is_json: bool) -> int:
    from app.bench import comparison, history

    first, second = paths
    found = comparison.compare(history.read_results(first), history.read_results(second))
    if is_json:
        say_json(msgspec.json.encode(found).decode())
    else:
        say(comparison.as_text(found, (str(first), str(second))), end="")
    return OK


def _prompts(options: argparse.Namespace, pair: PairChoice) -> tuple[list[BenchPrompt], str]:
    if options.prompts:
        return read_prompts(options.prompts), "own file"
    if options.chats:
        store = ChatStore.open(places.chats_database())
        try:
            return stored_prompts(store), "stored chats"
        finally:
            store.close()
    return bundled_prompts(pair.is_pocket, options.kinds), "in the box"


def _plan(options: argparse.Namespace, prompts: list[BenchPrompt], chat_options: ChatOptions) -> BenchPlan:
    is_quick = options.quick
    is_bundled = not (options.prompts or options.chats)
    contexts = options.contexts or (CONTEXTS if is_bundled and not is_quick else CONTEXTS[:1])
    if is_quick:
        prompts = list({prompt.kind: prompt for prompt in reversed(prompts)}.values())[::-1]
    minutes = options.minutes or (QUICK_MINUTES if is_quick else MINUTES)
    return BenchPlan(
        cases=make_cases(prompts, contexts, _modes(options)),
        settings=_chosen_settings(options),
        sampling=chat_options.sampling,
        system=chat_options.system,
        is_thinking=chat_options.is_thinking,
        max_tokens=chat_options.max_tokens or (QUICK_MAX_TOKENS if is_quick else MAX_TOKENS),
        limit_s=minutes * 60,
        cool_down_s=options.cool_down,
        passes=1 if is_quick else MOST_PASSES,
    )


def _modes(options: argparse.Namespace) -> tuple[Mode, ...]:
    is_sampled = options.sampled or (bool(options.temp) and not options.greedy)
    modes: tuple[Mode, ...] = ("greedy",) if options.greedy or not is_sampled else ()
    return (*modes, "sampled") if is_sampled else modes


def _chosen_settings(options: argparse.Namespace) -> tuple[str, ...]:
    """Always with off, which the others are compared with."""
    chosen = options.settings or (QUICK_SETTINGS if options.quick else SETTINGS)
    if options.draft is not None and not options.settings:
        chosen = (to_name(options.draft),)
    return tuple(dict.fromkeys((OFF, *chosen)))


def _settings(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        try:
            to_setting(name)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{name!r} is not off, auto or a number from 1 to 16") from None
    return names


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return tuple(name for name in known if name in names)

    return parse


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:g} to {most:g}")
        return value

    return parse
