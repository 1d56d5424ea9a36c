"""`slipstream launch`: what agents get to see, with programs in their place that note what they were given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.shell.agents import AGENTS, BARE_BELOW_TOKENS, Endpoint
from app.shell.editors import EDITORS, editor_of
from app.shell.launch import run_agent
from mlx_engine.protocol.errors import SlipstreamError
from tests.paths import ROOT
from tests.patience import PATIENCE_S

ENDPOINT = Endpoint("http://127.0.0.1:8765", "gemma-4-12b", 32_768)
SMALL = Endpoint("http://127.0.0.1:8765", "gemma-4-12b", BARE_BELOW_TOKENS - 1)
AGENT = """#!{python} -P
import json, os, sys
from pathlib import Path
arguments = sys.argv[1:]
files = {{word: Path(word).read_text() for word in arguments if word.startswith("/") and Path(word).is_file()}}
seen = {{"arguments": arguments, "variables": dict(os.environ), "files": files}}
Path({seen!r}).write_text(json.dumps(seen))
{then}
"""


class FakeAgent:
    """Stands on PATH in place of every agent, and writes down what it sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen = folder / "seen.json"

    def install(self, name: str, then: str = "sys.exit(7)") -> None:
        """then: what the program does at last."""
        program = self.folder / AGENTS[name].program
        program.write_text(AGENT.format(python=sys.executable, seen=str(self._seen), then=then))
        program.chmod(0o700)

    def seen(self) -> dict[str, Any]:
        """Its arguments, variables and the files that its arguments name."""
        seen: dict[str, Any] = json.loads(self._seen.read_text())
        return seen


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    """With a home folder of its own, so that a change of a person's files is seen."""
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a key of the person")
    return FakeAgent(tmp_path / "bin")


def launched(agent: FakeAgent, name: str, *arguments: str, endpoint: Endpoint = ENDPOINT) -> dict[str, Any]:
    """What the agent saw. The person's files are as they were, and the temporary ones are gone."""
    agent.install(name)
    assert run_agent(name, endpoint, arguments) == 7
    seen = agent.seen()
    assert not list(Path.home().iterdir())
    assert not any(Path(file).exists() for file in seen["files"])
    return seen


def test_claude_is_led_to_the_server_and_told_its_window(agent: FakeAgent) -> None:
    seen = launched(agent, "claude", "-p", "Hi")
    variables = seen["variables"]
    assert seen["arguments"] == ["--permission-mode", "default", "-p", "Hi"]
    assert variables["ANTHROPIC_BASE_URL"] == ENDPOINT.url
    assert variables["ANTHROPIC_AUTH_TOKEN"] == "local"
    assert "ANTHROPIC_API_KEY" not in variables
    assert variables["ANTHROPIC_MODEL"] == variables["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == "gemma-4-12b"
    assert variables["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "32768"
    assert variables["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "8192"
    assert variables["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"


def test_claude_is_bare_in_a_small_context_and_says_so(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = launched(agent, "claude", "--permission-mode=plan", endpoint=SMALL)
    assert seen["arguments"] == ["--bare", "--permission-mode=plan"]
    assert seen["variables"]["ANTHROPIC_API_KEY"] == "local"
    assert "ANTHROPIC_AUTH_TOKEN" not in seen["variables"]
    assert "no room for all of Claude Code" in capsys.readouterr().err
    seen = launched(agent, "claude", "--bare")
    assert seen["arguments"] == ["--permission-mode", "default", "--bare"]
    assert seen["variables"]["ANTHROPIC_API_KEY"] == "local"
    assert not capsys.readouterr().err


def test_codex_gets_a_provider_on_the_command_line(agent: FakeAgent) -> None:
    *settings, last = launched(agent, "codex", "exec")["arguments"]
    assert last == "exec"
    assert set(settings[::2]) == {"-c"}
    assert set(settings[1::2]) >= {
        'model="gemma-4-12b"',
        'model_provider="slipstream"',
        'model_providers.slipstream.base_url="http://127.0.0.1:8765/v1"',
        'model_providers.slipstream.wire_api="responses"',
        "model_context_window=32768",
    }
    assert agent.seen()["variables"]["SLIPSTREAM_KEY"] == "local"


def test_opencode_gets_a_provider_in_a_variable(agent: FakeAgent) -> None:
    config = json.loads(launched(agent, "opencode", "run")["variables"]["OPENCODE_CONFIG_CONTENT"])
    provider = config["provider"]["slipstream"]
    assert provider["options"] == {"baseURL": "http://127.0.0.1:8765/v1", "apiKey": "local"}
    assert provider["models"]["gemma-4-12b"]["limit"] == {"context": 32_768, "output": 8192}
    assert config["model"] == config["small_model"] == "slipstream/gemma-4-12b"


def test_pi_gets_a_provider_in_an_extension(agent: FakeAgent) -> None:
    seen = launched(agent, "pi", "-p", "Hi")
    [(path, extension)] = seen["files"].items()
    assert seen["arguments"][:2] == ["--extension", path]
    assert seen["arguments"][2:] == ["--provider", "slipstream", "--model", "gemma-4-12b", "-p", "Hi"]
    provider = json.loads(extension.partition('"slipstream", ')[2].removesuffix(");\n"))
    assert provider["baseUrl"] == "http://127.0.0.1:8765/v1"
    assert provider["models"][0]["contextWindow"] == 32_768


def test_aider_gets_the_windows_size_in_a_file(agent: FakeAgent) -> None:
    seen = launched(agent, "aider", "--message", "Hi")
    facts = json.loads(seen["files"][seen["arguments"][seen["arguments"].index("--model-metadata-file") + 1]])
    assert facts["openai/gemma-4-12b"]["max_input_tokens"] == 32_768
    assert seen["variables"]["OPENAI_API_BASE"] == "http://127.0.0.1:8765/v1"
    assert seen["arguments"][-2:] == ["--message", "Hi"]


@pytest.mark.parametrize("name", AGENTS)
def test_a_missing_program_is_named_with_the_way_to_install_it(agent: FakeAgent, name: str) -> None:
    with pytest.raises(SlipstreamError) as caught:
        run_agent(name, ENDPOINT, [])
    assert f"{AGENTS[name].program} is not installed. Install it with `{AGENTS[name].install}`" in str(
        caught.value
    )


def test_a_program_that_cannot_be_run_is_named(agent: FakeAgent) -> None:
    agent.install("pi")
    program = agent.folder / "pi"
    program.write_text("#!/no/such/interpreter\n")
    with pytest.raises(SlipstreamError, match="pi cannot be run: No such file"):
        run_agent("pi", ENDPOINT, [])


def test_an_agent_that_a_signal_ended_has_the_status_that_shells_give(agent: FakeAgent) -> None:
    agent.install("pi", f"os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert run_agent("pi", ENDPOINT, []) == 128 + signal.SIGKILL


PROGRAM = """
import sys
from app.shell.agents import Endpoint
from app.shell.launch import run_agent
from app.system.signals import ending_on_signals
with ending_on_signals():
    sys.exit(run_agent("pi", Endpoint("http://127.0.0.1:1", "x", 32768), []))
"""


WAITING = """
import signal
def end(*_):
    print("interrupted", flush=True)
    sys.exit(3)
signal.signal(signal.SIGINT, end)
print("started", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 3), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_ctrl_c_is_for_the_agent_and_sigterm_ends_both(
    agent: FakeAgent, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    agent.install("pi", WAITING)
    with subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == b"started\n"
        if number == signal.SIGINT:
            os.killpg(child.pid, number)  # as a terminal does
            assert child.stdout.readline() == b"interrupted\n"
        else:
            child.send_signal(number)
        assert child.wait(PATIENCE_S) == status
        assert child.stdout.read() == b""
    assert not list(tmp_path.glob("slipstream-*"))


def test_settings_for_editors() -> None:
    zed = json.loads(EDITORS["zed"].settings(ENDPOINT))
    provider = zed["language_models"]["openai_compatible"]["Slipstream"]
    assert provider["api_url"] == "http://127.0.0.1:8765/v1"
    assert provider["available_models"][0]["max_tokens"] == 32_768
    model = yaml.safe_load(EDITORS["continue"].settings(ENDPOINT))["models"][0]
    assert model["apiBase"] == "http://127.0.0.1:8765/v1"
    assert model["defaultCompletionOptions"] == {"contextLength": 32_768, "maxTokens": 8192}
    with pytest.raises(SlipstreamError, match="Cursor's own servers"):
        editor_of("cursor")
    with pytest.raises(SlipstreamError, match="Use zed or continue"):
        editor_of("ed")
