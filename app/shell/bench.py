"""`slipstream bench`: turns the arguments into a plan to measure, or into a comparison of two runs."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import msgspec

from app.bench.plan import MOST_PASSES, BenchPlan, make_cases, to_name, to_setting
from app.bench.prompts import BUNDLED_KINDS, BenchPrompt, bundled_prompts, read_prompts, stored_prompts
from app.bench.results import OFF, Context, Method, Mode
from app.core.engines import engine_for
from app.core.pair_choice import PairChoice
from app.core.reply_options import ReplyOptions
from app.store.chat_store import ChatStore
from app.system import places
from app.system.console import STANDARD_OUTPUT, say, say_json
from app.system.exit_codes import OK

CONTEXTS: tuple[Context, ...] = get_args(Context)
SETTINGS = ("off", "2", "4", "8", "16", "auto")
MINUTES = 10.0
MAX_TOKENS = 128
QUICK_SETTINGS = ("off", "2", "4", "8", "auto")
QUICK_MINUTES = 40 / 60
"""Leaves time to load the model within one minute."""
QUICK_MAX_TOKENS = 32
FORMATS = {
    "json": "all measurements as JSON, with half a minute of kernel figures unless --quick is given",
    "csv": "the rows of all tables as CSV",
    "markdown": "the tables as Markdown",
    "svg": "a chart of speedup by draft length and kind of prompt",
}

ChoosePair = Callable[[], PairChoice]


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Register `bench`. The caller adds the settings flags that it shares with `run`, and sets `command`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure how much drafting speeds up this machine, and which setting is fastest",
        description="Measure this model and its drafter on this machine. The draft settings take turns, there and "
        "back, so that heat and drift affect all of them alike. Replies are greedy, unless --sampled or a --temp "
        "above 0 is given.",
    )
    # fmt: off
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--prompts", type=Path, metavar="FILE",
        help="your own prompts: one per line, or one per paragraph if there are blank lines, or a JSON list of "
        "strings")
    source.add_argument("--chats", action="store_true", help="replay the latest prompts of your stored chats")
    source.add_argument("--kinds", type=_names(BUNDLED_KINDS), default=BUNDLED_KINDS, metavar="KINDS",
        help=f"kinds of built-in prompts: {','.join(BUNDLED_KINDS)} (default: all)")
    add("--settings", type=_settings, metavar="LIST",
        help=f"draft settings: off, 1..16, auto (default: {','.join(SETTINGS)}); --draft N is short for off,N")
    add("--contexts", type=_names(CONTEXTS), metavar="LIST",
        help="how much text comes before the prompt: short,medium,long (default: all three, or short for your own "
        "prompts); medium and long use one prompt of each kind")
    add("--greedy", action="store_true", help="measure greedy replies, also when --sampled is given")
    add("--sampled", action="store_true", help="measure sampled replies")
    add("--minutes", type=_number(0.01, 1e5), metavar="M", help=f"stop after M minutes (default: {MINUTES:g})")
    add("--cool-down", type=_number(0, 3600), default=0.0, metavar="S", help="rest S seconds after every block")
    add("--quick", action="store_true",
        help="one pass over one prompt of each kind, in less than a minute; fewer prompts and shorter replies "
        "where the model is slow")
    for format, content in FORMATS.items():
        add(f"--{format}", nargs="?", const=STANDARD_OUTPUT, metavar="FILE",
            help=f"write {content} to FILE; without FILE, print it instead of the table")
    add("--force", action="store_true", help="replace output files that exist")
    add("--compare", nargs=2, type=Path, metavar=("A.json", "B.json"),
        help="measure nothing; compare two runs, and show which changes are more than noise")
    # fmt: on
    return parser


def run(options: argparse.Namespace, choose_pair: ChoosePair, asked: ReplyOptions) -> int:
    """Measure or compare. Returns the exit code. Raises SlipstreamError."""
    if options.compare:
        return _compare(options.compare, is_json=options.json == STANDARD_OUTPUT)
    # Every start of the program imports this module; the modules that measure are imported only when needed.
    from app.bench.measuring import BenchJob, load_of, measure
    from app.bench.outputs import Outputs

    outputs = Outputs(
        {name: getattr(options, name) for name in FORMATS if getattr(options, name)}, may_replace=options.force
    )
    pair = choose_pair()
    prompts, origin = _prompts(options, pair)
    plan = _plan(options, prompts, asked)
    method = Method(
        settings=plan.settings,
        rule=asked.sampling.rule,
        max_tokens=plan.max_tokens,
        minutes=plan.limit_s / 60,
        cool_down_s=plan.cool_down_s,
        is_quick=options.quick,
        is_thinking=plan.is_thinking,
        prompts=origin,
    )
    job = BenchJob(pair, plan, method, outputs, places.bench_folder())
    return measure(job, engine_for(replace(pair, load=load_of(pair))))


def _compare(paths: Sequence[Path], is_json: bool) -> int:
    from app.bench import comparison, history

    first, second = paths
    result = comparison.compare(history.read_results(first), history.read_results(second))
    if is_json:
        say_json(msgspec.json.encode(result).decode())
    else:
        say(comparison.as_text(result, (str(first), str(second))), end="")
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


def _plan(options: argparse.Namespace, prompts: list[BenchPrompt], asked: ReplyOptions) -> BenchPlan:
    is_quick = options.quick
    is_bundled = not (options.prompts or options.chats)
    contexts = options.contexts or (CONTEXTS if is_bundled and not is_quick else CONTEXTS[:1])
    if is_quick:
        prompts = list({prompt.kind: prompt for prompt in reversed(prompts)}.values())[::-1]
    minutes = options.minutes or (QUICK_MINUTES if is_quick else MINUTES)
    return BenchPlan(
        cases=make_cases(prompts, contexts, _modes(options)),
        settings=_chosen_settings(options),
        sampling=asked.sampling,
        system=asked.system,
        is_thinking=asked.is_thinking,
        max_tokens=asked.max_tokens or (QUICK_MAX_TOKENS if is_quick else MAX_TOKENS),
        limit_s=minutes * 60,
        cool_down_s=options.cool_down,
        passes=1 if is_quick else MOST_PASSES,
        is_fitted=is_quick,
    )


def _modes(options: argparse.Namespace) -> tuple[Mode, ...]:
    is_sampled = options.sampled or (bool(options.temp) and not options.greedy)
    modes: tuple[Mode, ...] = ("greedy",) if options.greedy or not is_sampled else ()
    return (*modes, "sampled") if is_sampled else modes


def _chosen_settings(options: argparse.Namespace) -> tuple[str, ...]:
    """The settings to measure; always includes off, the baseline of the others."""
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
            raise argparse.ArgumentTypeError(
                f"{name!r} is not a draft setting. Use off, auto or 1 to 16"
            ) from None
    return names


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is unknown. Use {', '.join(known)}")
        return tuple(name for name in known if name in names)

    return parse


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} cannot be used. Use a number from {least:g} to {most:g}")
        return value

    return parse
