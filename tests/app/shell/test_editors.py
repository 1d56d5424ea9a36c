"""`slipstream serve --print-config`: settings that editors can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from app.cli import main
from app.system import places
from app.system.running_server import RunningServer, announce


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path))


def test_the_settings_are_of_the_server_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    announce(
        places.server_file(), RunningServer.this_process("http://127.0.0.1:2", "Gemma: 4", 9000, "a key", "1")
    )
    assert main(["serve", "--print-config", "zed"]) == 0
    printed = capsys.readouterr()
    provider = json.loads(printed.out)["language_models"]["openai_compatible"]["Slipstream"]
    assert provider["api_url"] == "http://127.0.0.1:2/v1"
    [model] = provider["available_models"]
    assert (model["name"], model["max_tokens"], model["max_output_tokens"]) == ("Gemma-4", 9000, 2250)
    assert "settings.json" in printed.err
    assert main(["serve", "--print-config", "continue"]) == 0
    [model] = yaml.safe_load(capsys.readouterr().out)["models"]
    assert (model["apiBase"], model["apiKey"]) == ("http://127.0.0.1:2/v1", "a key")
    assert model["defaultCompletionOptions"] == {"contextLength": 9000, "maxTokens": 2250}


def test_without_a_server_the_address_is_that_of_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "99", "--print-config", "continue"]) == 0
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["models"][0]["apiBase"] == "http://127.0.0.1:99/v1"
    assert "No server runs" in printed.err


@pytest.mark.parametrize(("name", "words"), [("cursor", "Cursor's own servers"), ("ed", "Use zed or continue")])
def test_other_editors_are_refused_with_the_reason(
    capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    assert main(["serve", "--print-config", name]) == 1
    assert words in capsys.readouterr().err
