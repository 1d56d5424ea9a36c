"""`slipstream servers`, and `run` and `bench` with `--server`, from the command line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import main
from app.remote import finding, keys
from app.system import places
from app.system.exit_codes import FAILED, OK
from app.system.running_server import RunningServer, announce
from tests.fakes.chat_server import ChatServer, chunk, refusal, stream, usage

LONG = (*(chunk(f"{number} ") for number in range(6)), chunk(finish="stop"), usage(40, 7))


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SLIPSTREAM_SERVER_KEY", raising=False)
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path))
    monkeypatch.setattr(keys, "_keyring", lambda: None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer([{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]) as server:
        yield server


def test_run_prints_the_reply_and_what_is_known_of_it(
    server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--server", server.url, "Hi"]) == OK
    assert capsys.readouterr().out == "Hello\n"
    assert main(["run", "--server", server.url, "--json", "Hi"]) == OK
    printed = json.loads(capsys.readouterr().out)
    assert (printed["text"], printed["prompt_tokens"], printed["model"]["server"]) == ("Hello", 3, "vLLM")
    assert (printed["cached_tokens"], printed["tokens_from"], printed["stats"]["acceptance"]) == (None, None, None)


def test_run_says_why_there_is_no_reply(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers.append(refusal(429, {"error": {"message": "busy"}}, {"Retry-After": "3"}))
    assert main(["run", "--server", server.url, "Hi"]) == FAILED
    assert "has too much to do (429: busy). It asks to wait 3 seconds" in capsys.readouterr().err
    assert main(["run", "--server", server.url, "--model", "n", "Hi"]) == FAILED
    assert "has no model 'n'. It has: m." in capsys.readouterr().err
    assert main(["run", "--server", "http://me:secret@h", "Hi"]) == FAILED
    assert "secret" not in capsys.readouterr().err


def test_run_says_what_made_a_reply_too_short_for_its_schema(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """vLLM's grammar allows any number of spaces, with which a small model may fill the context."""
    (schema := tmp_path / "schema.json").write_text('{"type": "object"}')
    for options, advice in (([], "It filled what the context"), (["--max-tokens", "9"], "a larger --max-tokens")):
        server.answers.append(stream(chunk("{  "), chunk(finish="length"), usage(3, 9)))
        assert main(["run", "--server", server.url, "--schema", str(schema), *options, "Hi"]) == FAILED
        assert advice in capsys.readouterr().err


def test_the_server_may_stand_in_the_environment(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLIPSTREAM_SERVER", server.url)
    monkeypatch.setenv("SLIPSTREAM_SERVER_KEY", "k")
    assert main(["run", "Hi"]) == OK
    captured = capsys.readouterr()
    assert captured.out == "Hello\n"
    assert not captured.err, "neither variable is taken for a misspelled setting"


def test_serve_refuses_to_hand_on(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--server", server.url]) == FAILED
    assert "Leave --server out" in capsys.readouterr().err


def test_finding_and_testing(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finding.find_servers, "__defaults__", ((server.port,),))
    assert main(["servers"]) == OK
    assert f"{server.url}  vLLM: m\n" in capsys.readouterr().out
    assert main(["servers", "list", "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == [
        {"url": f"{server.url}/v1", "name": "vLLM", "models": ["m"], "problem": None}
    ]
    server.models_status = 401
    main(["servers"])
    assert "asks for a key (401" in capsys.readouterr().out
    server.models_status = 200
    assert main(["servers", "test", server.url]) == OK
    printed = capsys.readouterr().out
    assert "context: 4,096 tokens" in printed
    assert "cannot switch drafting" in printed
    assert "Hello" in printed
    assert "counted by vLLM" in printed
    server.answers.append(stream(chunk("Hel"), breaks=True))
    assert main(["servers", "test", server.url]) == FAILED
    monkeypatch.setattr(finding.find_servers, "__defaults__", ((),))
    main(["servers"])
    assert "No server answers at the usual ports" in capsys.readouterr().out


def test_a_server_of_this_machine_is_found_wherever_it_listens(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finding.find_servers, "__defaults__", ((),))
    url = server.url.replace("127.0.0.1", "localhost")
    announce(places.server_file(), RunningServer.this_process(url, "m", 4096, "a-key", "1"))
    assert main(["servers"]) == OK
    assert f"{url}  vLLM: m\n" in capsys.readouterr().out
    assert server.headers[-1]["authorization"] == "Bearer a-key"


@pytest.mark.parametrize("key", ["schlüssel", "sec\nret", "sec ret"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    monkeypatch.setenv("SLIPSTREAM_SERVER_KEY", key)
    for command in (["servers", "test", server.url], ["run", "--server", server.url, "Hi"]):
        assert main(command) == FAILED
        said = "".join(capsys.readouterr())
        assert "SLIPSTREAM_SERVER_KEY cannot be sent" in said
        assert key not in said


def test_a_key_is_read_without_being_shown(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored: dict[str, str] = {}
    monkeypatch.setattr("app.shell.servers.store_key", lambda address, key: stored.update({address.shown: key}))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret\n")))
    assert main(["servers", "key", "studio.local:8765"]) == OK
    assert stored == {"studio.local:8765": "secret"}
    assert "secret" not in "".join(capsys.readouterr())
    assert main(["servers", "key", "studio.local:8765"]) == FAILED


@pytest.mark.parametrize(("owner", "settings"), [("llamacpp", ["as-is"]), ("vllm-mlx", ["off", "auto"])])
def test_bench_measures_a_server_and_leaves_blank_what_it_does_not_report(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], owner: str, settings: list[str]
) -> None:
    server.models = {"data": [{"id": "m", "owned_by": owner}]}
    server.answers.extend([stream(*LONG)] * 500)
    report = tmp_path / "bench.json"
    command = ["bench", "--server", server.url, "--contexts", "short", "--quick", "--json", str(report)]
    assert main(command) == OK
    results = json.loads(report.read_text())
    assert results["pair"]["server"] == {"llamacpp": "llama.cpp", "vllm-mlx": "vllm-mlx"}[owner]
    assert results["method"]["settings"] == settings
    reply = results["replies"][0]
    assert (reply["tokens"], reply["drafted"], reply["target_passes"]) == (6, None, None)
    assert (reply["peak_memory_bytes"], reply["energy_j"], reply["is_same"]) == (None, None, None)
    printed = capsys.readouterr().out
    assert f"answered by {results['pair']['server']}" in printed
    assert ("cannot switch drafting, so there was nothing to compare" in printed) == (settings == ["as-is"])
    assert ("Speedup by kind" in printed) == (settings != ["as-is"])


def test_bench_says_so_where_a_server_counts_nothing(
    server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers.extend([stream(chunk("a"), chunk("b", finish="stop"))] * 500)
    assert main(["bench", "--server", server.url, "--contexts", "short", "--quick"]) == FAILED
    assert "does not count the tokens" in capsys.readouterr().err
