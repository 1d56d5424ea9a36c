"""The command `slipstream`: parses the arguments and runs the chat, `run`, `bench` or another command."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path

from app import __version__
from app.core.attaching import find_attachment
from app.core.attachments import AttachmentError, read_mentions
from app.core.chat_options import ChatOptions
from app.core.engines import attached_engine, choose_attached, chooser, engine_for, first_served
from app.core.message_files import compose_message
from app.core.pair_choice import Choose, PairChoice, choose_pair, pair_options_of
from app.core.start import chat_options_of, fallback_pair, first_pair, reply_options_of
from app.core.unsaved import last_words
from app.serve import command as serve_command
from app.settings.effective import EffectiveSettings, read_settings
from app.settings.flags import add_flags, typed_values
from app.settings.remembered import RememberedChoices
from app.settings.table import NO_SERVER, Settings
from app.shell import bench as bench_command
from app.shell import chats as chats_command
from app.shell import completion, doctor, editors
from app.shell import launch as launch_command
from app.shell import models as models_command
from app.shell import servers as servers_command
from app.shell import settings as settings_command
from app.store.chat_store import ChatStore
from app.system import console, places
from app.system.exit_codes import FAILED, INTERRUPTED, OK, WRONG_USAGE
from app.system.mac import why_unusable
from app.system.signals import ending_on_signals
from app.text.figures import size
from app.text.sanitise import cleaned
from mlx_engine.client import EngineHandle
from mlx_engine.files.chat_cache_folder import ChatCacheFolder
from mlx_engine.protocol.errors import SlipstreamError

PIPE_HINT_S = 5.0
"""How long a pipe may be silent before the person learns that it is read."""
GARBAGE_THRESHOLDS = (10_000, 20, 100)
LISTING_COMMANDS = ("chats", "models", "servers")
"""Commands that run `list` when they are given alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    console.reserve_standard_streams()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv.insert(0, "chat")
    if len(argv) == 1 and argv[0] in LISTING_COMMANDS:
        argv.append("list")
    argv, agents_own = launch_command.cut(argv)
    try:
        parser = _parser()
        options, unknown = parser.parse_known_args(argv, argparse.Namespace(agents_own=agents_own))
        if unknown:
            hint = "; those of the agent go behind --" if argv[0] == "launch" else ""
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        command: Callable[[argparse.Namespace], int] = options.command
        if command in (_chat, _run, _bench, _serve) and (why := why_unusable()):
            raise SlipstreamError(why)
        with ending_on_signals():
            return command(options)
    except SlipstreamError as error:
        console.warn(str(error))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        console.discard(sys.stdout)
        return FAILED


def _chat(options: argparse.Namespace) -> int:
    effective, state = _settings_and_state(options)
    is_dumb = os.environ.get("TERM", "") in ("", "dumb")
    wants_plain = options.plain or effective.settings.plain
    if not (wants_plain or (console.is_terminal(sys.stdin) and console.is_terminal(sys.stdout))):
        console.warn(
            "the chat needs a terminal. Use `slipstream run` in a pipe, or `slipstream --plain` to chat line "
            "by line."
        )
        return WRONG_USAGE
    pair_options = pair_options_of(effective.settings)
    own, notice = first_pair(effective, pair_options)
    attachment = find_attachment(effective, pair_options)
    server = attachment.server
    pair = choose_attached(server) if server else own
    store = ChatStore.open(places.chats_database(), cache=ChatCacheFolder(places.chat_cache_folder()))
    chat_options = replace(
        chat_options_of(effective.settings, pair),
        chat_id=_chat_to_open(options, store),
        state=state,
        sources={name: effective.sources[name] for name in ("theme", "model") if effective.is_set_by_person(name)},
        fallback=own if server else fallback_pair(effective, pair, pair_options),
        notices=tuple(
            filter(None, (*effective.warnings, state.notice, attachment.notice, "" if server else notice))
        ),
        examine=doctor.examined,
    )
    engine = attached_engine(server, own) if server else engine_for(pair)
    # Started first, so that it loads while the screen is being built.
    engine.start()
    choose = chooser(pair, pair_options, server)
    try:
        if wants_plain or is_dumb:
            return _chat_plainly(engine, pair, choose, chat_options, store, is_chosen=wants_plain)
        # Modules and the widgets of a screen are many long-lived objects. Scanning them all for garbage takes up
        # to a tenth of a second, and with the default thresholds that happens at the start and in replies.
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        from app.tui.chat_app import ChatApp

        chat = ChatApp(engine, pair, choose, chat_options, store)
        gc.freeze()
        chat.run()
        return chat.return_code or OK
    finally:
        engine.close()
        if words := last_words(store):
            console.warn(words)
        store.close()
        console.flush_at_exit()


def _chat_plainly(
    engine: EngineHandle,
    pair: PairChoice,
    choose: Choose,
    options: ChatOptions,
    store: ChatStore,
    *,
    is_chosen: bool,
) -> int:
    from app.plain.chat import PlainChat
    from app.plain.lines import Lines

    if not is_chosen:
        reason = "TERM is dumb" if os.environ.get("TERM") else "TERM is not set"
        console.say(f"This terminal cannot position text ({reason}), so the chat runs line by line.")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if sys.stdin is None or sys.stdout is None:
        raise SlipstreamError("Standard input or output is closed, so there is no way to chat.")
    is_prompting = console.is_terminal(sys.stdin)
    lines = Lines(
        sys.stdin.buffer,
        sys.stdout,
        is_prompting=is_prompting,
        max_line_bytes=console.MAX_TYPED_BYTES if is_prompting else None,
    )
    PlainChat(engine, pair, options, store, lines, choose=choose).run()
    return OK


def _chat_to_open(options: argparse.Namespace, store: ChatStore) -> int | None:
    if not options.go_on:
        return None
    latest = store.list_chats(limit=1)
    if not latest:
        raise SlipstreamError("There is no chat to continue yet. Run `slipstream` to start one.")
    return latest[0].id


def _settings_and_state(options: argparse.Namespace) -> tuple[EffectiveSettings, RememberedChoices]:
    """The settings that apply, and the choices remembered from earlier chats."""
    state = RememberedChoices.read(places.state_file())
    return read_settings(typed_values(options), state.as_settings()), state


def _run(options: argparse.Namespace) -> int:
    from app.core.schema_file import read_schema
    from app.shell.run import run_once

    if options.prompt is None and console.is_terminal(sys.stdin):
        console.warn('the prompt is missing. For example: slipstream run "How do I start?"')
        return WRONG_USAGE
    prompt = _prompt_to_run(options.prompt)
    schema = read_schema(options.schema) if options.schema else None
    effective, state = _settings_and_state(options)
    pair_options = pair_options_of(effective.settings)
    attachment = find_attachment(effective, pair_options)
    if attachment.server:
        pair, notice_of_pair = choose_attached(attachment.server), ""
    else:
        pair, notice_of_pair = first_pair(effective, pair_options)
    for notice in filter(None, (*effective.warnings, state.notice, attachment.notice, notice_of_pair)):
        console.warn(notice)
    return run_once(
        engine_for(pair), pair, cleaned(prompt), effective.settings, is_json=options.json, schema=schema
    )


def _serve(options: argparse.Namespace) -> int:
    if options.print_config is not None:
        return editors.print_settings(options)
    if options.server not in (None, NO_SERVER):
        raise SlipstreamError("serve makes the replies itself, with a model of this machine. Leave --server out.")
    effective, state = _settings_and_state(options)
    effective = replace(effective, settings=replace(effective.settings, server=None))

    def choose() -> PairChoice:
        pair, notice = first_pair(effective, pair_options_of(effective.settings))
        for text in filter(None, (*effective.warnings, state.notice, notice)):
            console.warn(text)
        return pair

    return serve_command.serve(options, choose, reply_options_of(effective.settings))


def _bench(options: argparse.Namespace) -> int:
    typed = typed_values(options)
    # The pair comes from all settings, but how it replies only from flags, so that two machines measure the same.
    effective = _settings_and_state(options)[0]
    settings = effective.settings
    flags_only = Settings(**{name: value for name, value in typed.items() if value is not None})

    def choose() -> PairChoice:
        if effective.has_server:
            return first_served(effective)
        return choose_pair(settings.model, pair_options_of(settings))

    return bench_command.run(options, choose, reply_options_of(flags_only))


def _paths(options: argparse.Namespace) -> int:
    paths = places.everything()
    if options.json:
        console.say_json(json.dumps({name: str(path) for name, path in paths.items()}))
        return OK
    cached_bytes = ChatCacheFolder(paths["chat cache"]).size_bytes
    for name, path in paths.items():
        taken = f"  ({size(cached_bytes).strip()})" if name == "chat cache" and cached_bytes else ""
        console.say(f"{name:<12}{path}{taken}")
    return OK


def _prompt_to_run(typed: str | None) -> str:
    """The prompt with the files that it mentions, and what a pipe or a redirected file adds to it.

    Text from a pipe mentions no files. Raises SlipstreamError.
    """
    if typed in (None, "-"):
        return _read_standard_input("Press ctrl+c to end.")
    try:
        files = read_mentions(typed, Path())
    except AttachmentError as error:
        raise SlipstreamError(f"{error} Nothing was sent. An @ in piped text attaches no file.") from None
    piped = ""
    if console.has_piped_input():
        piped = _read_standard_input("Add </dev/null to the command to leave it out, or press ctrl+c.").strip("\n")
    return compose_message(f"{typed}\n\n{piped}" if piped.strip() else typed, files)


def _read_standard_input(advice: str) -> str:
    """All of it. advice: what to do if it does not end, which the person is told after a moment."""
    if sys.stdin is None:
        raise SlipstreamError("Standard input is closed. Type the prompt as an argument, or use a pipe.")
    hint = threading.Timer(PIPE_HINT_S, console.warn, [f"reading standard input until it ends. {advice}"])
    hint.daemon = True
    hint.start()
    try:
        data = sys.stdin.buffer.read()
    finally:
        hint.cancel()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SlipstreamError(
            f"standard input is not valid UTF-8 (byte {error.start} is {data[error.start]:#04x}). "
            "Convert it first, for example with iconv."
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = console.Arguments(
        prog="slipstream",
        description="Chat with Gemma 4 on this machine, sped up by a drafter. Without a command, opens the chat.",
        epilog="`slipstream chat --help` lists the flags of the chat, which also work without the command: "
        "--continue reopens the last chat, --plain chats line by line, --model chooses the model.",
    )
    parser.add_argument("--version", action="version", version=f"slipstream {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    chat = commands.add_parser("chat", help="open the chat (same as `slipstream` alone)")
    chat.add_argument("--continue", dest="go_on", action="store_true", help="reopen the chat you used last")
    chat.add_argument(
        "--plain",
        action="store_true",
        help="chat line by line, without colours: for screen readers and simple terminals",
    )
    run = commands.add_parser("run", help="print one reply to a prompt from an argument or a pipe")
    run.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="the prompt, with @FILE to attach a text file; piped text is added; - or nothing reads only the pipe",
    )
    run.add_argument(
        "--json", action="store_true", help="print one JSON object with the text, tokens and statistics"
    )
    run.add_argument(
        "--schema",
        type=Path,
        metavar="FILE",
        help="make the reply match the JSON schema in a file; needs `pip install llguidance`",
    )
    for command, action in ((chat, _chat), (run, _run)):
        add_flags(command)
        command.set_defaults(command=action)
    serve = serve_command.add_parser(commands)
    editors.add_flag(serve)
    serve.set_defaults(command=_serve)
    bench = bench_command.add_parser(commands)
    add_flags(bench)
    bench.set_defaults(command=_bench)
    launch_command.add_parser(commands)
    models_command.add_parser(commands)
    chats_command.add_parser(commands)
    servers_command.add_parser(commands)
    doctor.add_parser(commands)
    settings_command.add_parser(commands)
    paths = commands.add_parser("paths", help="show where files are kept")
    paths.add_argument("--json", action="store_true", help="print one JSON object")
    paths.set_defaults(command=_paths)
    completion.add_parser(commands, parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
