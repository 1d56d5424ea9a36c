"""`slipstream launch`: what agents get to see, with programs in their place that note what they were given."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.shell import launch
from app.shell.agents import AGENTS, BARE_BELOW_TOKENS, Endpoint
from app.shell.launch import run_agent
from app.system import places
from app.system.processes import start_of
from app.system.running_server import RunningServer, announce, find_server
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
        program = self.folder / name
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
    [(settings, content)] = seen["files"].items()
    assert seen["arguments"] == ["--permission-mode", "default", "--settings", settings, "-p", "Hi"]
    assert json.loads(content)["env"].items() <= variables.items()
    assert variables["ANTHROPIC_BASE_URL"] == ENDPOINT.url
    assert variables["ANTHROPIC_AUTH_TOKEN"] == "local"
    assert variables["ANTHROPIC_API_KEY"] == ""
    assert variables["ANTHROPIC_MODEL"] == variables["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == "gemma-4-12b"
    assert variables["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "32768"
    assert variables["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "8192"
    assert variables["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"


def test_claude_is_bare_in_a_small_context_and_says_so(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = launched(agent, "claude", "--permission-mode=plan", "--settings", "{}", endpoint=SMALL)
    assert seen["arguments"] == ["--bare", "--permission-mode=plan", "--settings", "{}"]
    assert seen["variables"]["ANTHROPIC_API_KEY"] == "local"
    assert seen["variables"]["ANTHROPIC_AUTH_TOKEN"] == ""
    said = capsys.readouterr().err
    assert "no room for all of Claude Code" in said
    assert f"{SMALL.context_tokens:,} tokens" in said
    seen = launched(agent, "claude", "--bare", endpoint=replace(ENDPOINT, key="it's a key"))
    assert seen["arguments"][-1] == "--bare"
    assert seen["arguments"].count("--bare") == 1
    [settings] = map(json.loads, seen["files"].values())
    assert shlex.split(settings["apiKeyHelper"]) == ["echo", "it's a key"]
    assert seen["variables"]["ANTHROPIC_API_KEY"] == seen["variables"]["ANTHROPIC_AUTH_TOKEN"] == ""
    assert not capsys.readouterr().err


def test_a_proxy_is_not_asked_for_the_server(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    variables = launched(agent, "pi")["variables"]
    assert variables["NO_PROXY"] == "example.org,127.0.0.1,localhost"
    assert variables["no_proxy"] == "127.0.0.1,localhost"


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


def test_an_argument_of_the_agent_in_the_wrong_place_is_told_the_right_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["launch", "claude", "--continue"])
    assert "unrecognized arguments: --continue; those of the agent go behind --" in capsys.readouterr().err


@pytest.mark.parametrize("name", AGENTS)
def test_a_missing_program_is_named_with_the_way_to_install_it(agent: FakeAgent, name: str) -> None:
    with pytest.raises(SlipstreamError) as caught:
        run_agent(name, ENDPOINT, [])
    assert f"{name} is not installed. Install it with `{AGENTS[name].install}`" in str(caught.value)


@pytest.mark.parametrize("name", ["codex", "opencode"])
def test_an_agent_without_room_for_its_own_instructions_is_not_run(agent: FakeAgent, name: str) -> None:
    agent.install(name)
    with pytest.raises(SlipstreamError, match="no room in a context of 4,096 tokens"):
        run_agent(name, Endpoint("http://127.0.0.1:1", "pocket", 4096), [])


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
from app.cli import main
from app.shell import launch
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


SERVER = """
import os, signal, sys
from pathlib import Path
from app.system import places
from app.system.running_server import RunningServer, announce
Path(sys.argv[1]).write_text(f"{os.getpid()} {sys.argv[2:]}")
if sys.argv[2:]:
    sys.exit("There is no such model.")
announce(places.server_file(), RunningServer.this_process("http://127.0.0.1:1", "Own: model", 9999, None, "1"))
signal.pause()
"""


@pytest.fixture
def server_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program stands in place of the server; this file says which process it is, and its arguments."""
    note = tmp_path / "server"
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path / "slipstream"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(launch, "SERVE", (sys.executable, "-P", "-c", SERVER, str(note)))
    return note


def test_a_server_that_runs_is_used_and_stays(
    agent: FakeAgent, server_note: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.install("aider")
    announce(places.server_file(), RunningServer.this_process("http://127.0.0.1:2", "gemma", 9999, "a key", "1"))
    assert main(["launch", "aider", "--model", "other", "--", "--yes", "--"]) == 7
    assert agent.seen()["arguments"][-2:] == ["--yes", "--"]
    assert agent.seen()["variables"]["OPENAI_API_BASE"] == "http://127.0.0.1:2/v1"
    assert agent.seen()["variables"]["OPENAI_API_KEY"] == "a key"
    assert "the server that runs has gemma" in capsys.readouterr().err
    assert not server_note.exists()
    assert find_server(places.server_file())


def test_a_server_is_started_if_none_runs_and_ends_with_the_agent(agent: FakeAgent, server_note: Path) -> None:
    agent.install("opencode")
    assert main(["launch", "opencode"]) == 7
    config = json.loads(agent.seen()["variables"]["OPENCODE_CONFIG_CONTENT"])
    assert config["model"] == "slipstream/Own-model"
    assert start_of(int(server_note.read_text().split()[0])) is None
    assert find_server(places.server_file()) is None


def test_a_server_that_does_not_start_says_why(
    agent: FakeAgent, server_note: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent.install("pi")
    assert main(["launch", "pi", "--model", "none"]) == 1
    assert "The server did not start. It said:\nThere is no such model." in capsys.readouterr().err
    assert server_note.read_text().endswith("['--model', 'none']")


def test_no_server_is_started_for_a_program_that_is_missing(agent: FakeAgent, server_note: Path) -> None:
    assert main(["launch", "codex"]) == 1
    assert not server_note.exists()
