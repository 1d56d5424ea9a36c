"""What each agent needs so that it uses this server, and nothing else of it changes.

Everything is said by flags, variables and files in a temporary folder. The person's own settings files are read by
the agent as ever, and never written.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.system.running_server import RunningServer

PROVIDER = "slipstream"
BARE_BELOW_TOKENS = 16_384
"""Claude Code's instructions and tools take up to 13,000 tokens; with `--bare` they take 1,000."""
BARE_NOTE = (
    "The context of {:,} tokens has no room for all of Claude Code, so it runs with --bare: without CLAUDE.md, "
    "hooks and most tools."
)
MAX_OUTPUT_TOKENS = 8192
ANY_MODEL = "gemma-4"
UNUSED_KEY = "local"
"""For a server that asks for none; clients refuse to run without."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server that an agent is to use."""

    url: str
    """Without a path: `http://127.0.0.1:8765`."""
    model: str
    context_tokens: int
    key: str = UNUSED_KEY

    @classmethod
    def of(cls, server: RunningServer) -> Endpoint:
        """The server as programs are told of it."""
        # Any name gets the loaded model; programs give a meaning to colons, slashes and spaces.
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", server.model).strip("-") or ANY_MODEL
        return cls(server.url, name, server.context_tokens, server.key or UNUSED_KEY)

    @property
    def output_tokens(self) -> int:
        """The longest answer to plan for: the more of the context it is, the earlier agents compact."""
        return min(MAX_OUTPUT_TOKENS, self.context_tokens // 4)


@dataclass(frozen=True, slots=True)
class Setup:
    """How to run an agent."""

    arguments: Sequence[str] = ()
    """Put before those that the person gives."""
    variables: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """By name, what is written into the temporary folder."""
    note: str = ""
    """What the person has to know beforehand."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A program that `slipstream launch` can run, by the program's name."""

    install: str
    """The command that installs it."""
    own_tokens: int
    """About what its instructions and tools take of the context, before the person has said a word."""
    set_up: Callable[[Endpoint, Path, Sequence[str]], Setup]
    """From the server, the temporary folder and the person's arguments."""


def _claude(endpoint: Endpoint, folder: Path, given: Sequence[str]) -> Setup:
    flags = {word.partition("=")[0] for word in given}
    is_small = endpoint.context_tokens < BARE_BELOW_TOKENS and "--bare" not in flags
    is_bare = is_small or "--bare" in flags
    has_settings = "--settings" in flags
    models = ("ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL")
    kinds = ("OPUS", "SONNET", "HAIKU")
    variables = {
        "ANTHROPIC_BASE_URL": endpoint.url,
        # A key in a variable has to be approved in a dialog, and --bare reads no token.
        "ANTHROPIC_AUTH_TOKEN": "" if is_bare else endpoint.key,
        "ANTHROPIC_API_KEY": endpoint.key if is_bare and has_settings else "",
        **dict.fromkeys(models, endpoint.model),
        **{f"ANTHROPIC_DEFAULT_{kind}_MODEL": endpoint.model for kind in kinds},
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(endpoint.context_tokens),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(endpoint.output_tokens),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    arguments = ["--bare"] if is_small else []
    if not flags & {"--permission-mode", "--dangerously-skip-permissions"}:
        # Its own default asks Anthropic's servers before every action.
        arguments += ["--permission-mode", "default"]
    if not has_settings:
        # Variables in the person's settings file would count for more than those of the process.
        arguments += ["--settings", str(folder / "claude.json")]
    helper = {"apiKeyHelper": f"echo {shlex.quote(endpoint.key)}"} if is_bare else {}
    return Setup(
        arguments,
        variables,
        files={"claude.json": json.dumps({"env": variables} | helper)},
        note=BARE_NOTE.format(endpoint.context_tokens) if is_small else "",
    )


def _codex(endpoint: Endpoint, folder: Path, given: Sequence[str]) -> Setup:
    settings = {
        "model": endpoint.model,
        "model_provider": PROVIDER,
        f"model_providers.{PROVIDER}.name": "Slipstream",
        f"model_providers.{PROVIDER}.base_url": f"{endpoint.url}/v1",
        f"model_providers.{PROVIDER}.wire_api": "responses",
        f"model_providers.{PROVIDER}.env_key": "SLIPSTREAM_KEY",
        "model_context_window": endpoint.context_tokens,
        "analytics.enabled": False,
        "check_for_update_on_startup": False,
    }
    # TOML writes these values as JSON does.
    pairs = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    return Setup([word for pair in pairs for word in ("-c", pair)], {"SLIPSTREAM_KEY": endpoint.key})


def _opencode(endpoint: Endpoint, folder: Path, given: Sequence[str]) -> Setup:
    limit = {"context": endpoint.context_tokens, "output": endpoint.output_tokens}
    model = f"{PROVIDER}/{endpoint.model}"
    config = {
        "$schema": "https://opencode.ai/config.json",
        "provider": {
            PROVIDER: {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Slipstream",
                "options": {"baseURL": f"{endpoint.url}/v1", "apiKey": endpoint.key},
                "models": {endpoint.model: {"name": endpoint.model, "limit": limit}},
            }
        },
        "model": model,
        "small_model": model,
        "autoupdate": False,
        "share": "disabled",
    }
    return Setup(variables={"OPENCODE_CONFIG_CONTENT": json.dumps(config), "OPENCODE_DISABLE_MODELS_FETCH": "1"})


def _pi(endpoint: Endpoint, folder: Path, given: Sequence[str]) -> Setup:
    provider = {
        "name": "Slipstream",
        "baseUrl": f"{endpoint.url}/v1",
        "apiKey": endpoint.key,
        "api": "openai-completions",
        "models": [
            {
                "id": endpoint.model,
                "name": endpoint.model,
                "reasoning": False,
                "input": ["text"],
                "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
                "contextWindow": endpoint.context_tokens,
                "maxTokens": endpoint.output_tokens,
            }
        ],
    }
    extension = f"export default (pi) => pi.registerProvider({json.dumps(PROVIDER)}, {json.dumps(provider)});\n"
    return Setup(
        ("--extension", str(folder / "slipstream.js"), "--provider", PROVIDER, "--model", endpoint.model),
        {"PI_SKIP_VERSION_CHECK": "1", "PI_TELEMETRY": "0"},
        files={"slipstream.js": extension},
    )


def _aider(endpoint: Endpoint, folder: Path, given: Sequence[str]) -> Setup:
    model = f"openai/{endpoint.model}"
    facts = {
        "litellm_provider": "openai",
        "mode": "chat",
        "max_input_tokens": endpoint.context_tokens,
        "max_output_tokens": endpoint.output_tokens,
        "max_tokens": endpoint.output_tokens,
        "input_cost_per_token": 0,
        "output_cost_per_token": 0,
    }
    return Setup(
        (
            *("--model", model, "--weak-model", model, "--editor-model", model),
            *("--model-metadata-file", str(folder / "models.json")),
            *("--no-show-model-warnings", "--no-show-release-notes", "--no-check-update", "--no-analytics"),
        ),
        {"OPENAI_API_BASE": f"{endpoint.url}/v1", "OPENAI_API_KEY": endpoint.key},
        files={"models.json": json.dumps({model: facts})},
    )


AGENTS = {
    "claude": Agent("npm install -g @anthropic-ai/claude-code", 1_000, _claude),
    "codex": Agent("npm install -g @openai/codex", 8_400, _codex),
    "opencode": Agent("npm install -g opencode-ai", 7_100, _opencode),
    "pi": Agent("npm install -g @mariozechner/pi-coding-agent", 1_300, _pi),
    "aider": Agent("python -m pip install aider-install && aider-install", 800, _aider),
}
