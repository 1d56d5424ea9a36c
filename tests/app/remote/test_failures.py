"""Each way in which a server fails: the text that came is kept, and the person learns why and what to do."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from typing import Any

import anyio
import httpx2
import pytest

from app.remote import engine
from app.remote.address import parse_address
from app.remote.connection import Served
from app.remote.engine import RemoteEngine
from app.remote.failures import connection_error, status_error
from mlx_engine.protocol.events import Failed, Finished, Part, Ready
from tests.app.remote.conftest import TalkTo
from tests.fakes.chat_server import DONE, HELLO, ChatServer, Stuck, chunk, refusal, stream, usage
from tests.patience import PATIENCE_S

HERE = parse_address("studio.local:8765")


def test_a_whole_answer(server: ChatServer, talk_to: TalkTo) -> None:
    talk = talk_to(server)
    finished = talk.ask()
    assert isinstance(finished, Finished)
    assert (talk.text, finished.reason) == ("Hello", "stop")
    assert finished.reported
    assert (finished.reported.prompt_tokens, finished.reported.generated_tokens) == (3, 2)
    assert (finished.reported.cached_tokens, finished.reported.drafted) == (None, None)
    ready = next(event for event in talk.heard if isinstance(event, Ready))
    assert (ready.target, ready.context_tokens, ready.memory_bytes) == ("m", None, None)


@pytest.mark.parametrize(
    "answer",
    [
        stream(chunk("Hel"), breaks=True),
        stream(chunk("Hel")),
        stream(chunk("Hel"), DONE),
        stream(chunk("Hel"), {"error": {"message": "out of memory"}}),
        stream(chunk("Hel"), {"error": "out of memory"}, DONE),
        stream(chunk("Hel"), "{half a mess"),
        stream(chunk("Hel"), '"a word"', '[1, 2]'),
    ],
    ids=["cut", "ends without a reason", "done without one", "error", "error in words", "garbage", "no object"],
)  # fmt: skip
def test_half_a_stream_keeps_what_came_and_the_next_request_works(
    server: ChatServer, talk_to: TalkTo, answer: Any
) -> None:
    talk = talk_to(server)
    server.answers.append(answer)
    failed = talk.ask()
    assert isinstance(failed, Failed)
    assert failed.id == 1
    assert talk.text == "Hel"
    assert isinstance(talk.ask(), Finished)


def test_an_empty_answer_with_success_is_none(server: ChatServer, talk_to: TalkTo) -> None:
    talk = talk_to(server)
    for answer in (stream(), stream(chunk(delta={"role": "assistant"}), DONE)):
        server.answers.append(answer)
        assert "empty reply" in talk.ask().message


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (401, {"error": {"message": "no key"}}, {}, "asks for a key (401: no key)"),
        (403, {"detail": "no"}, {}, "asks for a key (403: no)"),
        (404, {"error": {"message": "no m"}}, {}, "does not know the model"),
        (429, {"error": "slow down"}, {"Retry-After": "12"}, "asks to wait 12 seconds"),
        (503, {"error": {"message": "busy"}}, {"Retry-After": "7"}, "Unavailable: busy). It asks to wait 7"),
        (500, None, {}, "failed (500 Internal Server Error). Try again"),
        (400, {"detail": "odd"}, {}, "refuses the request (400: odd)"),
        (422, {"detail": [{"loc": ["top_k"]}]}, {}, "top_k"),
        (307, None, {"Location": "http://elsewhere.example"}, "to http://elsewhere.example. Nothing was sent"),
    ],
)  # fmt: skip
def test_a_status_is_explained(
    server: ChatServer, talk_to: TalkTo, status: int, body: Any, headers: dict[str, str], words: str
) -> None:
    talk = talk_to(server)
    server.answers.append(refusal(status, body, headers))
    failed = talk.ask()
    assert isinstance(failed, Failed)
    assert words in failed.message
    assert len(server.bodies) == 1, "nothing is sent twice by itself"
    assert isinstance(talk.ask(), Finished)


def test_a_redirect_of_the_list_is_not_followed_either(server: ChatServer, talk_to: TalkTo) -> None:
    server.models_status, server.model_headers = 302, {"Location": "http://elsewhere.example"}
    talk = talk_to(server)
    talk.engine.start()
    assert "sends its clients on to http://elsewhere.example" in talk.until(Failed).message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"error": {"message": "request (12901 tokens) exceeds the available context size (2048 tokens)",
                       "type": "exceed_context_size_error", "n_prompt_tokens": 12901, "n_ctx": 2048}},
            "has 12,901 tokens and is too long for studio.local:8765, whose context is 2,048 tokens",
        ),
        (
            {"error": {"message": "This model's maximum context length is 4096 tokens. However, you requested "
                       "12909 tokens (12901 in the messages, 8 in the completion).",
                       "code": "context_length_exceeded"}},
            "has 12,901 tokens and is too long for studio.local:8765, whose context is 4,096 tokens",
        ),
        (
            {"error": {"message": "This model's maximum context length is 4096 tokens. However, your prompt "
                       "contains at least 4097 input tokens", "code": 400}},
            "has at least 4,097 tokens and is too long",
        ),
        (
            {"error": {"message": "The input (12901 tokens) is longer than the model's context length "
                       "(4096 tokens).", "code": 400}},
            "has 12,901 tokens and is too long for studio.local:8765, whose context is 4,096 tokens. Start a new",
        ),
        (
            {"error": {"message": "Requested token count exceeds the model's maximum context length of 4096 "
                       "tokens. You requested a total of 5001 tokens: 1001 tokens from the input messages and "
                       "4000 tokens for the completion.", "code": 400}},
            "has 1,001 tokens, and with 4,000 more for the reply it is too long for studio.local:8765, whose "
            "context is 4,096 tokens. Allow fewer with --max-tokens",
        ),
        (
            {"error": {"message": "This model's maximum context length is 8192 tokens. However, your messages "
                       "resulted in 9000 tokens."}},
            "9,000 tokens",
        ),
        (
            {"detail": "Protected conversation exceeds the available context budget."},
            "is too long for studio.local:8765 (Protected",
        ),
        (
            {"error": {"message": "litellm.ContextWindowExceededError: OpenAIException - request (12901 tokens) "
                       "exceeds the available context size (2048 tokens)", "code": "400"}},
            "whose context is 2,048 tokens",
        ),
    ],
)  # fmt: skip
def test_too_long_is_said_in_words_with_the_numbers(body: Any, words: str) -> None:
    assert words in str(status_error(HERE, 400, {}, body))


def test_retry_after_may_be_a_date_in_the_past_or_nonsense() -> None:
    for text in ("Wed, 21 Oct 2015 07:28:00 GMT", "soon", ""):
        assert "wait" not in str(status_error(HERE, 429, {"retry-after": text}, None))


def test_the_words_of_a_server_neither_steer_the_terminal_nor_show_the_key() -> None:
    body = {"error": {"message": "bad key secret-1\x1b[2J\nsecond line " + "x" * 1000}}
    message = str(status_error(HERE, 401, {}, body, key="secret-1"))
    assert "secret-1" not in message
    assert "\x1b" not in message
    assert "\n" not in message
    assert len(message) < 600
    assert "<html>" not in str(status_error(HERE, 502, {}, "<html>Bad Gateway</html>"))


def test_an_error_before_the_first_word_leaves_nothing_to_continue(server: ChatServer, talk_to: TalkTo) -> None:
    talk = talk_to(server)
    died = {"error": {"message": "died"}}
    server.answers.append(stream(chunk(delta={"role": "assistant", "content": ""}), died))
    assert "failed before the reply began: died. Try again in a moment." in talk.ask().message
    server.answers.append(stream(chunk("Hel"), died))
    assert "broke the reply off: died. /continue goes on." in talk.ask().message


def test_no_server_is_there_and_later_one_is(talk_to: TalkTo) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        talk = talk_to(f"http://127.0.0.1:{taken.getsockname()[1]}")
        failed = talk.ask()
    assert failed.id is None
    assert "No server answers at http://127.0.0.1" in failed.message
    assert "Connection refused" in failed.message


def test_a_server_that_restarts_is_asked_again_what_it_is(server: ChatServer, talk_to: TalkTo) -> None:
    talk = talk_to(server)
    server.answers.append(stream(chunk("Hel"), breaks=True))
    assert "broke off in the middle of the reply" in talk.ask().message
    server.models = {"data": [{"id": "another"}]}
    talk.ask()
    assert [event.target for event in talk.heard if isinstance(event, Ready)] == ["another"]
    assert server.bodies[-1]["model"] == "another"


def test_a_server_that_dies_in_the_middle(talk_to: TalkTo) -> None:
    with ChatServer() as server:
        talk = talk_to(server)
        server.answers.append(Stuck(chunk("Hel")))
        talk.begin()
        talk.until(Part)
        server.stop()
        failed = talk.until(Failed)
        assert talk.text == "Hel"
        assert "/continue" in failed.message


@pytest.mark.parametrize(
    ("error", "has_begun", "words"),
    [
        (httpx2.ProxyError("403 Forbidden"), False, "between here and studio.local:8765 refuses (403 Forbidden)"),
        (ssl.SSLCertVerificationError(1, "self-signed"), False, "to studio.local:8765 failed (self-signed"),
        (httpx2.ConnectError("[SSL: WRONG_VERSION_NUMBER]"), False, "No server answers at http://studio.local:8765"),
        (httpx2.ConnectTimeout(""), False, "does not answer. Check the address"),
        (httpx2.ReadTimeout(""), False, "sent nothing for too long"),
        (httpx2.ReadError(""), True, "broke off in the middle of the reply ("),
        (httpx2.RemoteProtocolError("Server disconnected"), False, "closed the connection without an answer"),
    ],
)  # fmt: skip
def test_a_connection_that_fails_is_explained(error: BaseException, has_begun: bool, words: str) -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = error
    assert words in str(connection_error(HERE, outer, has_begun=has_begun))


def test_something_that_is_no_server_of_models(server: ChatServer, talk_to: TalkTo) -> None:
    server.models = None
    server.model_headers = {"content-type": "text/html"}
    assert "not as a server of models" in talk_to(server).ask().message


def test_a_model_that_is_not_listed_is_never_asked_for(server: ChatServer, talk_to: TalkTo) -> None:
    failed = talk_to(server, "another").ask()
    assert "has no model 'another'. It has: m." in failed.message
    assert not server.bodies


def test_stopping_closes_the_stream_within_a_message(server: ChatServer, talk_to: TalkTo) -> None:
    talk, stuck = talk_to(server), Stuck(chunk("Hel"))
    server.answers.append(stuck)
    talk.begin()
    talk.until(Part)
    talk.engine.cancel()
    finished = talk.until(Finished)
    assert (finished.reason, talk.text) == ("cancelled", "Hel")
    assert stuck.has_left.wait(10)
    assert isinstance(talk.ask(), Finished)


def test_stopping_before_the_first_word_and_closing_leave_nothing_behind(
    server: ChatServer, talk_to: TalkTo
) -> None:
    talk, stuck = talk_to(server), Stuck()
    talk.ask()
    server.answers.append(stuck)
    talk.begin()
    talk.engine.cancel()
    assert talk.until(Finished).reason == "cancelled"
    server.answers.clear()
    server.answers.append(Stuck(chunk("Hel")))
    talk.begin()
    talk.until(Part)
    talk.engine.close()
    talk.engine.close()
    assert isinstance(talk.ask(), Finished), "a closed engine starts again with the next message"


@pytest.mark.filterwarnings("error")
def test_closing_at_the_very_start_of_a_connection_leaves_no_task_that_never_ran(
    monkeypatch: pytest.MonkeyPatch, talk_to: TalkTo
) -> None:
    """asyncio's own way to end a loop cancels all tasks, even those that anyio began for others an instant ago."""
    connects, goes_on = threading.Event(), asyncio.Event()
    end_all = RemoteEngine._end_all

    async def child() -> None:
        pass

    async def looking(*_: object) -> Served:
        connects.set()
        await goes_on.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(child)
        raise AssertionError("it was not cancelled")

    async def ending(engine: RemoteEngine) -> None:
        goes_on.set()
        await asyncio.sleep(0)  # the child is begun, and has not run yet
        await end_all(engine)

    monkeypatch.setattr(engine, "look", looking)
    monkeypatch.setattr(RemoteEngine, "_end_all", ending)
    talk = talk_to("http://127.0.0.1:1")
    talk.engine.start()
    assert connects.wait(PATIENCE_S)
    talk.engine.close()
    gc.collect()


def test_reasons_and_calls(server: ChatServer, talk_to: TalkTo) -> None:
    talk = talk_to(server)
    pieces = [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
        {"index": 1, "id": "b", "type": "function", "function": {"name": "go", "arguments": ""}},
    ]
    deltas = [chunk(delta={"tool_calls": [piece]}) for piece in pieces]
    server.answers.append(stream(*deltas, chunk(finish="tool_calls"), DONE))
    finished = talk.ask()
    assert finished.reason == "stop"
    assert [(call.name, call.arguments, call.id) for call in finished.calls] == [
        ("look", '{"at": 1}', "a"),
        ("go", "{}", "b"),
    ]
    server.answers.append(stream(chunk("Hel"), chunk(finish="length"), usage(1, 1)))
    assert talk.ask().reason == "length"


def test_thoughts_come_in_either_field_and_never_twice(server: ChatServer, talk_to: TalkTo) -> None:
    talk = talk_to(server)
    both = {"reasoning_content": "hm", "reasoning": "hm", "content": None}
    server.answers.append(stream(chunk(delta=both), chunk(delta={"reasoning": " so"}), *HELLO))
    talk.ask()
    assert (talk.thinking, talk.text) == ("hm so", "Hello")


def test_encryption_where_there_is_none(server: ChatServer, talk_to: TalkTo) -> None:
    failed = talk_to(server.url.replace("http:", "https:")).ask()
    assert "The encrypted connection to 127.0.0.1" in failed.message


def test_a_proxy_is_named_and_never_asked_about_this_machine(
    server: ChatServer, talk_to: TalkTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@{proxy}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        failed = talk_to("http://studio.invalid").ask()
        assert f"through the proxy {proxy}" in failed.message
        assert "secret" not in failed.message
        assert isinstance(talk_to(server).ask(), Finished)
