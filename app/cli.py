"""The command `slipstream`: what is typed in the shell becomes a chat, a reply or a list of places."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import TypeVar

from app import bench_command, chats_command, doctor, models_command, places
from app.chat_options import ChatOptions
from app.pair_choice import Drafting, PairChoice, choose_pair
from app.store.chat_store import ChatStore
from mlx_engine.client import EngineClient
from mlx_engine.errors import SlipstreamError
from mlx_engine.events import MAX_DRAFT_LENGTH, DraftSetting, SamplingOptions
from models import hub_cache, pocket
from models.errors import ModelsError

N = TypeVar("N", int, float)

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "chat")
    options = _parser().parse_args(words)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except (SlipstreamError, ModelsError) as error:
        print(f"slipstream: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _chat(options: argparse.Namespace) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("slipstream: the chat needs a terminal. For pipes there is `slipstream run`.", file=sys.stderr)
        return WRONG_USAGE
    drafting = _drafting(options)
    pair = choose_pair(options.model, drafting)
    store = ChatStore.open(places.chats_database())
    chat_options = replace(_chat_options(options, pair), chat_id=_chat_to_open(options, store))
    engine = EngineClient(pair.load, places.engine_log())
    # Before anything of the screen: the engine then loads while the screen is being built.
    engine.start()
    try:
        from app.chat_app import ChatApp

        chat = ChatApp(engine, pair, lambda model: choose_pair(model, drafting), chat_options, store)
        chat.run()
        return chat.return_code or OK
    finally:
        engine.close()
        store.close()


def _chat_to_open(options: argparse.Namespace, store: ChatStore) -> int | None:
    if not options.go_on:
        return None
    latest = store.list_chats(limit=1)
    if not latest:
        raise SlipstreamError("There is no chat to continue yet. `slipstream` alone begins one.")
    return latest[0].id


def _run(options: argparse.Namespace) -> int:
    from app.run import run_once

    prompt = options.prompt
    if prompt is None and sys.stdin.isatty():
        print('slipstream run: no prompt. Give one: slipstream run "How do I start?"', file=sys.stderr)
        return WRONG_USAGE
    if prompt in (None, "-"):
        prompt = _read_standard_input()
    pair = choose_pair(options.model, _drafting(options))
    if pair.notice:
        print(f"slipstream: {pair.notice}", file=sys.stderr)
    return run_once(
        EngineClient(pair.load, places.engine_log()), prompt, _chat_options(options, pair), is_json=options.json
    )


def _bench(options: argparse.Namespace) -> int:
    return bench_command.run(
        options, lambda options: choose_pair(options.model, _drafting(options)), _chat_options
    )


def _paths(options: argparse.Namespace) -> int:
    kept = {
        "pocket": pocket.TARGET_FOLDER.parent,
        "models": hub_cache.cache_folder(),
        "own catalog": places.own_catalog(),
        "chats": places.chats_database(),
        "estimates": places.estimates_folder(),
        "bench": places.bench_folder(),
        "engine log": places.engine_log(),
        "crash log": places.app_log(),
    }
    for name, path in kept.items():
        print(f"{name:<12}{path}")
    return OK


def _read_standard_input() -> str:
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SlipstreamError(
            f"standard input is not UTF-8 (byte {error.start} is {data[error.start]:#04x}). "
            "Convert it first, for example with iconv."
        ) from None


def _drafting(options: argparse.Namespace) -> Drafting:
    return Drafting(options.drafter, options.drafter_bits, options.draft_start)


def _chat_options(options: argparse.Namespace, pair: PairChoice) -> ChatOptions:
    return ChatOptions(
        sampling=SamplingOptions(
            temperature=options.temp,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
            seed=options.seed,
            rule=options.sampling,
        ),
        draft_length=options.draft,
        max_tokens=options.max_tokens,
        system=options.system,
        is_thinking=options.think,
        about_model=pocket.INTRODUCTION if pair.is_pocket else None,
        log_path=places.app_log(),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slipstream",
        description="Chat with Gemma 4 on this machine, sped up by its drafter. Without a command: the chat.",
    )
    parser.add_argument("--version", action="version", version=f"slipstream {version('slipstream')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    chat = commands.add_parser("chat", help="open the chat (what `slipstream` alone does)")
    chat.add_argument("--continue", dest="go_on", action="store_true", help="go on with the chat used last")
    run = commands.add_parser("run", help="print one reply; reads a pipe")
    run.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to ask; - or nothing reads standard input")
    run.add_argument("--json", action="store_true", help="print one JSON object with text, tokens and figures")
    for command, action in ((chat, _chat), (run, _run)):
        _add_generation_options(command)
        command.set_defaults(command=action)
    bench = bench_command.add_parser(commands)
    _add_generation_options(bench)
    bench.set_defaults(command=_bench, draft=None)
    models_command.add_parser(commands)
    chats_command.add_parser(commands)
    doctor.add_parser(commands)
    paths = commands.add_parser("paths", help="say where everything is kept")
    paths.set_defaults(command=_paths)
    return parser


def _add_generation_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", metavar="NAME|FOLDER|HUB-ID",
        help="a target that is here; `slipstream models list` names them (default: the pocket model)")  # fmt: skip
    add("--drafter", metavar="FOLDER|HUB-ID|auto|lookup|none", default="auto",
        help="folder of its assistant or of a smaller model of the family; lookup: what the text itself suggests, "
        "without weights; auto (default): the assistant if it is there, else lookup")  # fmt: skip
    add("--drafter-bits", type=int, choices=(4, 8), help="quantize the drafter's weights while loading")
    add("--draft", type=_draft_setting, default="auto", metavar="auto|off|1..16",
        help="tokens drafted per round; auto (default): as many as pay, by what is measured")  # fmt: skip
    add("--draft-start", type=_number(int, 1, MAX_DRAFT_LENGTH), metavar="N",
        help="what auto begins with when it knows nothing (default: by the kind of GPU)")  # fmt: skip
    add("--temp", type=_number(float, 0, 100), metavar="T", help="temperature; 0 is greedy")
    add("--top-k", type=_number(int, 0, 1 << 30), metavar="K", help="keep the K likeliest tokens; 0 keeps all")
    add("--top-p", type=_number(float, 1e-6, 1), metavar="P", help="keep the likeliest tokens that hold P")
    add("--min-p", type=_number(float, 0, 1), default=0.0, metavar="P",
        help="keep tokens at least P times as likely as the likeliest")  # fmt: skip
    add("--repetition-penalty", type=_number(float, 0.01, 100), default=1.0, metavar="R",
        help="above 1: words that the reply already has become less likely")  # fmt: skip
    add("--sampling", choices=("rejection", "coupled"), default="rejection",
        help="both are exact; coupled: one seed, the same words with and without drafting")  # fmt: skip
    add("--seed", type=_number(int, 0, (1 << 32) - 1), metavar="N", help="the same seed, the same reply")
    add("--max-tokens", type=_number(int, 1, 1 << 30), metavar="N", help="end the reply after N tokens")
    add("--think", action=argparse.BooleanOptionalAction, default=False, help="let the model think first")
    add("--system", metavar="TEXT", help="instructions ahead of the conversation")


def _draft_setting(text: str) -> DraftSetting:
    if text == "auto":
        return "auto"
    if text == "off":
        return 0
    return _number(int, 1, MAX_DRAFT_LENGTH)(text)


def _number(kind: type[N], least: N, most: N) -> Callable[[str], N]:
    def parse(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main())
