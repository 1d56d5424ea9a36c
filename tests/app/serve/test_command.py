"""`slipstream serve` as a program, with the pocket pair."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import msgspec
import openai
import pytest

from app import cli
from app.system.exit_codes import FAILED, WRONG_USAGE
from app.system.processes import start_of
from app.system.running_server import RunningServer, announce, find_server, withdraw
from mlx_engine.protocol.errors import SlipstreamError
from models import pocket
from tests.paths import ROOT
from tests.patience import PROGRAM_PATIENCE_S

pytestmark = pytest.mark.slow


@contextmanager
def program(home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Ends with the test, whatever happens."""
    running = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve", *arguments],
        cwd=ROOT,
        env=os.environ | {"SLIPSTREAM_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate(timeout=PROGRAM_PATIENCE_S)


def test_real_clients_use_the_pocket_pair(tmp_path: Path) -> None:
    place = tmp_path / "home" / "state" / "server.json"
    with program(tmp_path / "home", "--port", "0") as running:
        assert running.stdout is not None
        said = ""
        while "is ready" not in said:
            line = running.stdout.readline()
            assert line, running.stderr.read() if running.stderr else ""
            said += line
        server = find_server(place)
        assert server is not None
        assert server.url in said
        assert (server.model, server.context_tokens, server.process_id) == ("pocket", 4096, running.pid)
        assert place.stat().st_mode & 0o077 == 0
        _ask_as_openai(server.url)
        _ask_as_anthropic(server.url)
        _call_as_openai(server.url)
        _call_as_anthropic(server.url)
        running.send_signal(signal.SIGINT)
        assert running.wait(PROGRAM_PATIENCE_S) == 130
    assert not place.exists()


def _ask_as_openai(url: str) -> None:
    with (
        httpx2.Client(trust_env=False) as http,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", http_client=http, max_retries=0) as client,
    ):
        with client.chat.completions.stream(
            model="gpt-any",
            messages=[{"role": "user", "content": "How do I turn drafting off?"}],
            stream_options={"include_usage": True},
            temperature=0,
        ) as stream:
            completion = stream.get_final_completion()
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage is not None
        again = client.responses.create(model="any", input="How do I turn drafting off?", temperature=0)
        assert again.output_text == completion.choices[0].message.content
        assert again.usage is not None
        assert again.usage.input_tokens_details.cached_tokens > 0, "the prompt was read already"
        schema: dict[str, object] = {
            "type": "object",
            "properties": {"n": {"type": "integer"}},
            "required": ["n"],
        }
        answer = client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "A number, please."}],
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
            max_tokens=60,
        )
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(answer.choices[0].message.content or "")["n"], int)
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model="any", input="word " * 5000)
        assert refused.value.code == "context_length_exceeded"


def _ask_as_anthropic(url: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        with client.messages.stream(
            model="claude-any", max_tokens=8, messages=[{"role": "user", "content": "Hello"}]
        ) as stream:
            message = stream.get_final_message()
        assert message.usage.output_tokens == 8
        assert message.stop_reason == "max_tokens"
        counted = client.messages.count_tokens(model="any", messages=[{"role": "user", "content": "Hello"}])
        assert counted.input_tokens == message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def _call_as_openai(url: str) -> None:
    """The pocket pair calls both of its tools, and says what came of it."""
    tools: Any = [{"type": "function", "function": each} for each in json.loads(pocket.TOOLS_FILE.read_text())]
    asked: list[Any] = [{"role": "user", "content": "Set the draft length to 7."}]
    with (
        httpx2.Client(trust_env=False) as http,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", http_client=http, max_retries=0) as client,
    ):
        with client.chat.completions.stream(model="any", messages=asked, tools=tools, temperature=0) as stream:
            choice = stream.get_final_completion().choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("set_draft_length", {"length": 7})
        asked += [choice.message.model_dump(exclude_none=True, exclude={"parsed"})]
        asked += [{"role": "tool", "tool_call_id": call.id, "content": "done"}]
        answer = client.chat.completions.create(model="any", messages=asked, tools=tools, temperature=0)
        assert answer.choices[0].message.content == "The draft length is now 7."


def _call_as_anthropic(url: str) -> None:
    tools: Any = [
        {"name": each["name"], "description": each["description"], "input_schema": each["parameters"]}
        for each in json.loads(pocket.TOOLS_FILE.read_text())
    ]
    options: Any = {"model": "any", "max_tokens": 64, "tools": tools}
    asked: list[Any] = [{"role": "user", "content": "Can you check the memory use?"}]
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        message = client.messages.create(messages=asked, **options)
        assert message.stop_reason == "tool_use"
        (call,) = message.content
        assert isinstance(call, anthropic.types.ToolUseBlock)
        assert (call.name, call.input) == ("how_much_memory", {})
        asked += [{"role": "assistant", "content": [call.model_dump()]}]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "2.4 GB"}
        asked += [{"role": "user", "content": [result]}]
        (text,) = client.messages.create(messages=asked, **options).content
        assert isinstance(text, anthropic.types.TextBlock)
        assert text.text == "The engine uses 2.4 GB of memory."


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--host", "0.0.0.0"), FAILED, "needs a key"),
        (("--host", "nowhere.invalid", "--key", "k"), FAILED, "cannot listen"),
        (("--host", "192.0.2.1", "--key", "k"), FAILED, "requested address. Choose another with --host."),
        (("--key", "schlüssel"), FAILED, "No program can send this key"),
        (("--key", "two words"), FAILED, "No program can send this key"),
        (("--port", "99999"), WRONG_USAGE, "is no port"),
        (("--port", "x"), WRONG_USAGE, "is no port"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        sys.exit(cli.main(["serve", *arguments]))
    assert ended.value.code == status
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["serve", "--port", str(taken.getsockname()[1])]) == FAILED
    assert "already in use. Choose another with --port" in capsys.readouterr().err


def test_a_server_that_has_ended_is_not_found(tmp_path: Path) -> None:
    place = tmp_path / "state" / "server.json"
    assert find_server(place) is None
    server = RunningServer.this_process("http://127.0.0.1:1", "m", 4096, None, "1.0")
    announce(place, server)
    assert find_server(place) == server
    for gone in ({"process_start": "earlier"}, {"machine": "another"}, {"process_start": None}):
        place.write_text(json.dumps(json.loads(place.read_text()) | gone))
        assert find_server(place) is None
        withdraw(place)
        assert place.exists(), "it is not ours"
        announce(place, server)
    place.write_text("{")
    assert find_server(place) is None
    announce(place, server)
    withdraw(place)
    assert not place.exists()


def test_the_server_that_was_found_before_is_found_again(tmp_path: Path) -> None:
    place = tmp_path / "state" / "server.json"
    ours = RunningServer.this_process("http://127.0.0.1:1", "m", 4096, None, "1.0")
    parent = os.getppid()
    other = msgspec.structs.replace(ours, process_id=parent, process_start=start_of(parent))
    announce(place, other)
    for _ in range(2):  # a server is announced each time that its engine is loaded
        announce(place, ours)
    assert find_server(place) == msgspec.structs.replace(ours, before=other)
    withdraw(place)
    assert find_server(place) == other
    place.write_bytes(
        msgspec.json.encode(
            msgspec.structs.replace(ours, before=msgspec.structs.replace(other, process_start="earlier"))
        )
    )
    withdraw(place)
    assert not place.exists(), "the one before has ended too"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    options = cli._parser().parse_args(["serve"])
    with pytest.raises(SlipstreamError, match=r"serve needs uvicorn.*\.\[serve\]"):
        options.command(options)
