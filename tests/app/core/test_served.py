"""The same chat over a server: the dialogue with a real server's engine, its gauges, figures and comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.core.engines import choose_served, chooser, engine_for, first_served
from app.core.pair_choice import PairOptions
from app.core.turn_stats import reply_line, short_line, spoken_line, stored_lines
from app.remote import keys
from app.remote.address import ServerError, parse_address
from app.settings.effective import read_settings
from app.store.records import TurnStats
from mlx_engine.client import EngineClient
from mlx_engine.protocol.events import Ready, ServerFigures
from tests.app.core.front import Front
from tests.fakes.chat_server import HELLO, ChatServer, Stuck, chunk, stream, usage

DRAFTED = {
    "drafted_tokens": 6, "accepted_tokens": 3, "rounds": 2, "tokens_per_round": 2.5, "speedup": 1.5
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLIPSTREAM_SERVER_KEY", raising=False)
    monkeypatch.setattr(keys, "_keyring", lambda: None)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer([{"id": "m", "owned_by": "slipstream", "max_model_len": 100}]) as server:
        yield server


@pytest.fixture
def front(server: ChatServer) -> Iterator[Front]:
    choice = choose_served(parse_address(server.url), None)
    front = Front(engine_for(choice), choice)
    yield front
    front.close()


async def test_a_chat_with_its_figures(server: ChatServer, front: Front) -> None:
    end = (chunk(finish="stop", slipstream=DRAFTED), usage(30, 6))
    server.answers.append(stream(chunk("One"), chunk(" two"), *end))
    await front.ask("Count")
    assert front.last.text == "One two"
    assert front.last.reply.state == "complete"
    stats = front.last.reply.stats
    assert stats.reported == ServerFigures(
        "Slipstream", prompt_tokens=30, generated_tokens=6, drafted=6, accepted=3, rounds=1, tokens_per_round=2.5,
        speedup=1.5,
    )  # fmt: skip
    chat = front.dialogue.conversation.chat
    assert chat is not None
    assert front.store.path(chat.id)[-1].stats == stats
    reading = front.dialogue.gauges.reading()
    assert (reading.acceptance, reading.tokens_per_round, reading.speedup) == (0.5, 2.5, 1.5)
    assert (reading.context_tokens, reading.context_limit, reading.memory_bytes) == (36, 100, None)
    assert reading.ttft_s is not None
    assert front.pair.title == f"m at {parse_address(server.url).shown}"
    assert "counted by Slipstream" in stored_lines(front.last.reply)[1]
    await front.ask("More")
    assert [message["content"] for message in server.bodies[-1]["messages"]] == ["Count", "One two", "More"]


async def test_what_is_not_reported_is_blank(server: ChatServer, front: Front) -> None:
    server.models = {"data": [{"id": "m", "owned_by": "me"}]}
    server.answers.append(stream(chunk("One"), chunk(" two", finish="stop")))
    await front.ask("Count")
    reading = front.dialogue.gauges.reading()
    values = (reading.acceptance, reading.tokens_per_round, reading.tokens_per_s, reading.speedup)
    assert values == (None, None, None, None)
    assert (reading.context_tokens, reading.context_limit, reading.plain_tokens_per_s) == (None, None, None)
    line = stored_lines(front.last.reply)[1]
    assert line.startswith("TTFT ")
    assert line.endswith("seen here · not counted by llama-cpp-python")
    assert "0 tok" not in line


async def test_a_reply_that_broke_off_keeps_its_text_and_goes_on(server: ChatServer, front: Front) -> None:
    server.answers.append(stream(chunk("One"), breaks=True))
    await front.ask("Count")
    assert (front.last.text, front.last.reply.state) == ("One", "failed")
    assert "broke off in the middle of the reply" in front.errors[0]
    assert not front.back
    server.answers.append(stream(chunk(" two", finish="stop"), usage(5, 2)))
    await front.dialogue.go_on()
    await front.rest()
    assert (front.last.text, front.last.reply.state) == ("One two", "complete")
    assert server.bodies[-1]["messages"][-1] == {"role": "assistant", "content": "One"}


async def test_a_message_that_got_no_word_comes_back(server: ChatServer, front: Front) -> None:
    server.models_status = 503
    await front.ask("Count")
    assert front.back == ["Count"]
    assert "failed (503" in front.errors[0]
    assert "model could not be loaded" not in front.errors[0]
    server.models_status = 200
    await front.ask("Count")
    assert front.last.text == "Hello"


async def test_stopping_and_regenerating(server: ChatServer, front: Front) -> None:
    server.answers.append(Stuck(chunk("One")))
    await front.dialogue.ask("Count")
    while not front.last.text:
        await front.hear()
    front.dialogue.stop()
    await front.rest()
    assert (front.last.text, front.last.reply.state) == ("One", "stopped")
    await front.dialogue.regenerate()
    await front.rest()
    assert (front.last.text, front.last.reply.state) == ("Hello", "complete")


async def test_drafting_off_against_on(server: ChatServer, front: Front) -> None:
    await front.ask("Count")
    comparison = front.dialogue.compare()
    assert comparison is not None
    server.answers.extend([stream(*HELLO), stream(*HELLO)])
    while comparison.is_running:
        await front.hear()
    assert [body["slipstream"]["draft"] for body in server.bodies[-2:]] == [0, "auto"]
    assert comparison.result.endswith("same text, 2 tok")


async def test_where_drafting_cannot_be_switched_the_person_learns_why(server: ChatServer, front: Front) -> None:
    server.models = {"data": [{"id": "m", "owned_by": "llamacpp"}]}
    await front.ask("Count")
    assert front.dialogue.compare() is None
    assert front.told[-1] == "A request to llama.cpp cannot switch drafting. There is nothing to compare."
    assert not front.dialogue.set_drafting(0)
    assert front.told[-1].endswith("There is nothing to switch on.")


async def test_another_model_of_the_server(server: ChatServer, front: Front) -> None:
    await front.ask("Count")
    server.models = {"data": [{"id": "m"}, {"id": "n"}]}
    remembered: list[str] = []
    front.pair._remember = remembered.append
    front.dialogue.switch_pair(chooser(front.pair.choice, PairOptions())("n", False), "n")
    await front.hear_until(Ready)
    await front.ask("More")
    assert server.bodies[-1]["model"] == "n"
    assert not remembered, "the next start on this machine has another model"


STATS = TurnStats(
    ttft_s=0.5, decode_s=2.0, reported=ServerFigures("vllm-mlx", 30, None, 9, True, 8, 4, None, None, 0.9)
)


def test_lines_name_whose_figures_they_are() -> None:
    assert reply_line(STATS) == (
        "about 9 tok · 4.0 tok/s seen here · 50% acc · 0.90× (slower) · TTFT 0.50 s seen here · "
        "counted by vllm-mlx"
    )
    assert short_line(STATS) == "about 9 tok · 4.0 tok/s · 0.90× (slower)"
    assert spoken_line(STATS, broke_off=True) == (
        "about 9 tokens, 4.0 tokens per second seen here, 50% of the drafts accepted, 0.90 times plain speed, "
        "which is slower, first token after 0.50 seconds seen here, counted by vllm-mlx, broke off."
    )


def test_which_model_is_meant(tmp_path: Any) -> None:
    def target(typed: dict[str, Any], remembered: dict[str, Any], file: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(file)
        return first_served(read_settings(typed, remembered, {}, path)).load.target

    assert target({"server": "h:1"}, {"model": "e4b"}, "") == ""
    assert target({"server": "h:1"}, {}, "model: e4b\n") == ""
    assert target({}, {}, "model: m\nserver: h:1\n") == "m"
    assert target({"server": "h:1", "model": "m"}, {}, "model: e4b\n") == "m"


def test_without_a_server_the_engine_is_a_child_process_and_without_the_client_a_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choice = choose_served(parse_address("h:1"), None)
    assert isinstance(engine_for(replace(choice, server=None)), EngineClient)
    monkeypatch.setattr("app.remote.engine.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServerError, match="Install the extra"):
        first_served(read_settings({"server": "h:1"}, {}, {}))
