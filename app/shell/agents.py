"""What each agent needs so that it uses this server, and nothing else of it changes.

Everything is said by flags, variables and files in a temporary folder. The person's own settings files are read by
the agent as ever, and never written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROVIDER = "slipstream"
BARE_BELOW_TOKENS = 16_384
"""Claude Code's instructions and tools take up to 13,000 tokens; with `--bare` they take 1,000."""
BARE_NOTE = (
    "The context of {} tokens has no room for all of Claude Code, so it runs with --bare: without CLAUDE.md, "
    "hooks and most tools."
)
MAX_OUTPUT_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server that an agent is to use."""

    url: str
    """Without a path: `http://127.0.0.1:8765`."""
    model: str
    context_tokens: int
    key: str = "local"
    """Any text, unless the server wants a certain one; clients refuse to run without."""

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
    removed_variables: Sequence[str] = ()
    """Those of the person's that would lead the agent elsewhere."""
    files: dict[str, str] = field(default_factory=dict)
    """By name, what is written into the temporary folder."""
    note: str = ""
    """What the person has to know beforehand."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A program that `slipstream launch` can run."""

    program: str
    install: str
    """The command that installs it."""
    set_up: Callable[[Endpoint, Path, Sequence[str]], Setup]
    """From the server, the temporary folder and the person's arguments."""


def _claude(endpoint: Endpoint, folder: Path, given: Sequence[str]) -> Setup:
    is_small = endpoint.context_tokens < BARE_BELOW_TOKENS and "--bare" not in given
    is_bare = is_small or "--bare" in given
    names_permissions = any(
        word.split("=")[0] in ("--permission-mode", "--dangerously-skip-permissions") for word in given
    )
    models = ("ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL")
    kinds = ("OPUS", "SONNET", "HAIKU")
    return Setup(
        (
            *(["--bare"] if is_small else []),
            # Its own default asks Anthropic's servers before every action.
            *([] if names_permissions else ["--permission-mode", "default"]),
        ),
        {
            "ANTHROPIC_BASE_URL": endpoint.url,
            # A key that is not known yet has to be approved in a dialog, a token has not; --bare reads keys alone.
            "ANTHROPIC_API_KEY" if is_bare else "ANTHROPIC_AUTH_TOKEN": endpoint.key,
            **dict.fromkeys(models, endpoint.model),
            **{f"ANTHROPIC_DEFAULT_{kind}_MODEL": endpoint.model for kind in kinds},
            "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(endpoint.context_tokens),
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(endpoint.output_tokens),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
        ("ANTHROPIC_AUTH_TOKEN" if is_bare else "ANTHROPIC_API_KEY",),
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
            *("--no-show-model-warnings", "--no-check-update", "--analytics-disable"),
        ),
        {"OPENAI_API_BASE": f"{endpoint.url}/v1", "OPENAI_API_KEY": endpoint.key},
        files={"models.json": json.dumps({model: facts})},
    )


AGENTS = {
    "claude": Agent("claude", "npm install -g @anthropic-ai/claude-code", _claude),
    "codex": Agent("codex", "npm install -g @openai/codex", _codex),
    "opencode": Agent("opencode", "npm install -g opencode-ai", _opencode),
    "pi": Agent("pi", "npm install -g @mariozechner/pi-coding-agent", _pi),
    "aider": Agent("aider", "python -m pip install aider-install && aider-install", _aider),
}
