"""Settings for editors that use the server, for `slipstream serve --print-config`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import yaml

from app.shell.agents import ANY_MODEL, Endpoint
from app.system import places
from app.system.console import say, tell
from app.system.exit_codes import OK
from app.system.running_server import find_server
from mlx_engine.protocol.errors import SlipstreamError

USUAL_CONTEXT_TOKENS = 32_768
"""Of Gemma 4 in the memory of most machines."""


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag to the parser of `serve`."""
    parser.add_argument(
        "--print-config", metavar="|".join(EDITORS), help="print the settings for an editor, and start no server"
    )


def print_settings(options: argparse.Namespace) -> int:
    """Print the settings for the editor that the flag names. Returns the exit code. Raises SlipstreamError."""
    editor = editor_of(options.print_config)
    if server := find_server(places.server_file()):
        endpoint = Endpoint.of(server)
    else:
        endpoint = Endpoint(f"http://{options.host}:{options.port}", ANY_MODEL, USUAL_CONTEXT_TOKENS)
        tell(
            f"No server runs, so a context of {USUAL_CONTEXT_TOKENS:,} tokens is assumed. Start one and print "
            "this again for the model's."
        )
    say(editor.settings(endpoint))
    tell(editor.place)
    return OK


@dataclass(frozen=True, slots=True)
class Editor:
    """An editor with settings for a server of one's own."""

    settings: Callable[[Endpoint], str]
    place: str
    """Where to put them, and what else there is to do."""


def _zed(endpoint: Endpoint) -> str:
    model = {
        "name": endpoint.model,
        "display_name": endpoint.model,
        "max_tokens": endpoint.context_tokens,
        "max_output_tokens": endpoint.output_tokens,
        "capabilities": {"tools": True, "images": False, "parallel_tool_calls": True, "prompt_cache_key": False},
    }
    provider = {"Slipstream": {"api_url": f"{endpoint.url}/v1", "available_models": [model]}}
    return json.dumps({"language_models": {"openai_compatible": provider}}, indent=2)


def _continue(endpoint: Endpoint) -> str:
    model = {
        "name": f"Slipstream: {endpoint.model}",
        "provider": "openai",
        "model": endpoint.model,
        "apiBase": f"{endpoint.url}/v1",
        "apiKey": endpoint.key,
        "roles": ["chat", "edit", "apply"],
        "capabilities": ["tool_use"],
        "defaultCompletionOptions": {
            "contextLength": endpoint.context_tokens,
            "maxTokens": endpoint.output_tokens,
        },
    }
    config = {"name": "Slipstream", "version": "1.0.0", "schema": "v1", "models": [model]}
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip("\n")


EDITORS = {
    "zed": Editor(
        _zed,
        "For Zed's settings.json. Zed wants a key too: `export SLIPSTREAM_API_KEY=local` before it starts, or any "
        "text in its settings of LLM providers.",
    ),
    "continue": Editor(_continue, "For ~/.continue/config.yaml."),
}


def editor_of(name: str) -> Editor:
    """Raises SlipstreamError."""
    if name == "cursor":
        raise SlipstreamError(
            "Cursor cannot use a server on this machine: its requests come from Cursor's own servers. Use Zed, "
            "Continue, or an agent with `slipstream launch`."
        )
    if name not in EDITORS:
        raise SlipstreamError(f"There are no settings for {name}. Use {' or '.join(EDITORS)}.")
    return EDITORS[name]
