"""Requests over the loopback address, and what the engine is asked for them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx2
import msgspec
import pytest

from app.core.reply_options import ReplyOptions
from app.serve import guard, sending
from app.serve.answering import AnswerMaker
from app.serve.dialects.openai_chat import ChatCompletions
from app.serve.job import Job
from mlx_engine.protocol.events import Checked, Failed, Finished, Generate, SamplingOptions, Silent, ToolCall
from tests.app.serve.scripted import data_of
from tests.app.serve.serving import CHAT, HeldEngine, QuickEngine, Served, chat, serving
from tests.cases import cases
from tests.fakes.engine import FakeEngine
from tests.patience import PATIENCE_S

READ = ToolCall("read", '{"path": "a"}', "call_1")


@pytest.fixture
def engine() -> HeldEngine:
    return HeldEngine()


@pytest.fixture
def served(engine: HeldEngine) -> Iterator[Served]:
    with serving(engine) as served:
        yield served


@pytest.fixture
def quick() -> Iterator[Served]:
    with serving(QuickEngine()) as served:
        yield served


class Asking:
    """A request in a thread of its own."""

    def __init__(self, served: Served, body: dict[str, Any], path: str = CHAT) -> None:
        self.response: httpx2.Response | None = None
        self._served, self._body, self._path = served, body, path
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with self._served.client() as client, suppress(httpx2.RemoteProtocolError):
            self.response = client.post(self._path, json=self._body)

    def wait(self) -> None:
        """Until it is answered, or the connection broke."""
        self._thread.join(PATIENCE_S)

    def answer(self) -> httpx2.Response:
        self.wait()
        assert self.response is not None
        return self.response


def text_of(stream: bytes) -> str:
    chunks = [data for data in data_of(stream) if data != "[DONE]"]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


def test_every_api_answers_streamed_and_whole(quick: Served) -> None:
    bodies: dict[str, dict[str, Any]] = {
        CHAT: chat(),
        "/v1/completions": {"prompt": "Once"},
        "/v1/responses": {"input": "Hi"},
        "/v1/messages?beta=true": chat(max_tokens=32_000),
    }
    with quick.client() as client:
        for path, body in bodies.items():
            whole = client.post(path, json=body)
            assert whole.status_code == 200, whole.text
            assert "Hello there." in whole.text
            assert whole.json()["slipstream"]["drafter"] == "fake-assistant"
            streamed = client.post(path, json=body | {"stream": True})
            assert streamed.headers["content-type"].startswith("text/event-stream")
            assert "Hello " in streamed.text
            assert "there." in streamed.text


def test_the_chat_template_is_left_out_for_completions(served: Served, engine: HeldEngine) -> None:
    asking = Asking(served, {"prompt": "Once upon"}, "/v1/completions")
    request = engine.next_request()
    assert (request.prompt, request.messages) == ("Once upon", ())
    engine.begin()
    engine.finish(text=" a time")
    assert asking.answer().json()["choices"][0]["text"] == " a time"


def test_models_for_all_clients_at_once(quick: Served) -> None:
    with quick.client() as client:
        models = client.get("/v1/models?limit=1000").json()
        (model,) = models["data"]
        assert (models["object"], models["has_more"], models["first_id"]) == ("list", False, "fake")
        assert {"id", "object", "created", "owned_by", "type", "display_name", "created_at"} <= model.keys()
        assert client.get("/v1/models/claude-haiku-5-5").json()["id"] == "claude-haiku-5-5"


def test_an_answer_names_the_loaded_model_where_the_request_names_none(quick: Served) -> None:
    with quick.client() as client:
        for path, body in (
            (CHAT, {"messages": [{"role": "user", "content": "Hi"}]}),
            ("/v1/completions", {"prompt": "Hi"}),
            ("/v1/responses", {"input": "Hi"}),
        ):
            assert client.post(path, json=body).json()["model"] == "fake"
        assert client.post(CHAT, json=chat(model="mine")).json()["model"] == "mine"


def test_a_large_body_is_read_in_a_thread(quick: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    dialect = quick.server._dialects[CHAT]
    read = type(dialect).read

    def noted(self: Any, body: Any) -> Any:
        threads.append(threading.current_thread())
        return read(self, body)

    monkeypatch.setattr(type(dialect), "read", noted)
    with quick.client() as client:
        for text in ("small", "large " * (guard.LARGE_BODY_BYTES // 5)):
            answered = client.post(CHAT, json=chat(user=text))
            assert answered.status_code == 200
    small, large = threads
    assert small is not large


ENDINGS = {
    CHAT: "error",
    "/v1/completions": "error",
    "/v1/responses": "response.failed",
    "/v1/messages": "error",
}
"""The last event of a stream, by its type or its only field."""


@pytest.mark.parametrize("path", ENDINGS)
@pytest.mark.parametrize("is_running", [True, False])
def test_a_stream_says_that_the_server_ends(
    engine: HeldEngine, monkeypatch: pytest.MonkeyPatch, path: str, is_running: bool
) -> None:
    body = chat(stream=True, prompt="Once") if path != "/v1/responses" else {"input": "Hi", "stream": True}
    with ExitStack() as running, httpx2.Client(timeout=PATIENCE_S, trust_env=False) as client:
        served = running.enter_context(serving(engine, patience_s=0))
        first = None if is_running else Asking(served, chat())
        with client.stream("POST", f"{served.url}{path}", json=body) as waiting:
            request = engine.next_request()
            if is_running:
                engine.begin()
                engine.say("Half an ans")
                served.wait_for(lambda states: bool(states and states[0]["completion_tokens"]))
            else:
                served.wait_for(lambda states: [each["state"] for each in states] == ["reading", "queued"])
            running.close()
            *before, last = data_of(waiting.read())
        assert last.get("type", "error") == ENDINGS[path]
        failed = last["response"] if path == "/v1/responses" else last
        assert "The server was ended" in failed["error"]["message"]
        assert ("Half an ans" in json.dumps(before)) == is_running
        if first:
            refused = first.answer()
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_ended")
            assert len(engine.requests) == 1
    assert engine.requests == [request]


def test_a_reader_that_takes_nothing_does_not_keep_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "LAST_WORDS_S", 0.01)
    line: Any = FakeEngine()
    dialect = ChatCompletions()
    job = Job("1", dialect.read(chat(stream=True)), Generate(1, ()), Checked(1, 2, 3), "?")
    response = sending.AnswerResponse(AnswerMaker(line), job, dialect)

    async def never(*_: object) -> Any:
        await asyncio.Event().wait()

    async def end() -> bool:
        answering = asyncio.create_task(response({"type": "http"}, never, never))
        await asyncio.sleep(0)
        answering.cancel()
        await asyncio.wait((answering,), timeout=PATIENCE_S)
        return answering.cancelled()

    assert asyncio.run(end())
    assert job.has_left


def test_tokens_are_counted_while_a_reply_runs(served: Served, engine: HeldEngine) -> None:
    asking = Asking(served, chat())
    engine.next_request()
    with served.client() as client:
        counted = client.post("/v1/messages/count_tokens", json=chat())
    assert counted.json() == {"input_tokens": 2}
    engine.finish()
    assert asking.answer().status_code == 200


def test_too_long_is_refused_before_the_headers(served: Served, engine: HeldEngine) -> None:
    def check(request: Generate) -> None:
        engine.emit(Checked(request.id, 40_000, 32_768))

    engine.check = check  # type: ignore[method-assign]
    with served.client() as client:
        refused = client.post(CHAT, json=chat(stream=True))
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        assert "maximum context length is 32768 tokens" in refused.text
        refused = client.post("/v1/messages", json=chat(stream=True, max_tokens=9))
        assert "prompt is too long: 40000 tokens > 32768 maximum" in refused.text
        assert client.post("/v1/messages/count_tokens", json=chat()).json() == {"input_tokens": 40_000}
    assert engine.requests == []


def test_what_the_engine_refuses_is_the_clients_to_mend(served: Served, engine: HeldEngine) -> None:
    def check(request: Generate) -> None:
        engine.emit(Failed(request.id, "The schema cannot be used.", "refused"))

    engine.check = check  # type: ignore[method-assign]
    with served.client() as client:
        refused = client.post(CHAT, json=chat(stream=True))
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "The schema cannot be used."


FORM = {"type": "json_schema", "schema": {}}
REFUSED = [
    ("/v1/chat/completions", {"response_format": FORM}, "schema", "response_format"),
    ("/v1/completions", {"prompt": "Hi", "response_format": FORM}, "schema", "response_format"),
    ("/v1/responses", {"input": "Hi", "text": {"format": FORM}}, "schema", "text.format"),
    ("/v1/messages", {"output_config": {"format": FORM}}, "schema", "output_config.format"),
    ("/v1/messages/count_tokens", {"output_format": FORM}, "schema", "output_format"),
    ("/v1/chat/completions", {}, "tools.look", "tools[1].function.parameters"),
    ("/v1/responses", {"input": "Hi"}, "tools.agents::look", "tools[2].tools[0].parameters"),
    ("/v1/messages", {}, "tools.look", "tools[1].input_schema"),
    ("/v1/chat/completions", {}, "tools", "tools"),
    ("/v1/responses", {"input": "Hi"}, "messages", "input"),
    ("/v1/completions", {"prompt": "Hi"}, None, None),
]


@pytest.mark.parametrize(("path", "fields", "about", "param"), REFUSED)
@pytest.mark.parametrize("is_checked", [True, False])
def test_what_the_engine_refuses_is_named_as_the_client_named_it(
    served: Served,
    engine: HeldEngine,
    path: str,
    fields: dict[str, Any],
    about: str | None,
    param: str | None,
    is_checked: bool,
) -> None:
    look = {"name": "look", "parameters": {}}
    tools: list[Any] = [{"type": "web_search"}, {"type": "function", "function": look}]
    if path == "/v1/responses":
        tools.append({"type": "namespace", "name": "agents", "tools": [look | {"type": "function"}]})
    elif path.startswith("/v1/messages"):
        tools = [{"type": "bash_20250124", "name": "bash"}, {"name": "look", "input_schema": {}}]
    body = chat(tools=tools) | fields
    refusal = "It cannot be used."
    if is_checked or path.endswith("count_tokens"):
        engine.check = lambda request: engine.emit(Failed(request.id, refusal, "refused", about))  # type: ignore[method-assign]
    asking = Asking(served, body, path)
    if not is_checked and not path.endswith("count_tokens"):
        engine.emit(Failed(engine.next_request().id, refusal, "refused", about))
    refused = asking.answer()
    assert refused.status_code == 400
    assert refused.json()["error"] | {"type": "", "code": ""} == {
        "message": refusal, "type": "", "code": "", "param": param,
    }  # fmt: skip


def test_a_sign_of_life_in_the_queue_and_while_the_prompt_is_read(
    served: Served, engine: HeldEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "FIRST_SIGN_S", 0.01)
    monkeypatch.setattr(sending, "NEXT_SIGN_S", 0.01)
    with served.client() as client, client.stream("POST", CHAT, json=chat(stream=True)) as stream:
        engine.next_request()
        assert stream.status_code == 200
        lines = stream.iter_lines()
        signs = 0
        while signs < 3:
            signs += next(lines).startswith(":")
        engine.begin()
        engine.finish(text="Hello")
        assert any("Hello" in line for line in lines)


def test_requests_take_turns_and_short_ones_go_before_others(served: Served, engine: HeldEngine) -> None:
    tool = {"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}
    long = chat(messages=[{"role": "user", "content": "long"}], tools=[tool])
    first = Asking(served, long)
    assert engine.next_request().messages[-1].text == "long"
    second = Asking(served, long | {"messages": [{"role": "user", "content": "also long"}]})
    served.wait_for(lambda states: len(states) == 2)
    title = Asking(served, chat())
    served.wait_for(lambda states: [state["state"] for state in states].count("queued") == 2)
    order = []
    for _ in range(2):
        engine.begin()
        engine.finish(text="x")
        order.append(engine.next_request().messages[-1].text)
    engine.begin()
    engine.finish(text="x")
    assert order == ["Hi there", "also long"]
    assert all(asking.answer().status_code == 200 for asking in (first, second, title))


def test_a_client_that_leaves_the_queue_is_never_answered(served: Served, engine: HeldEngine) -> None:
    running = Asking(served, chat())
    engine.next_request()
    with served.client() as client, client.stream("POST", CHAT, json=chat(stream=True)):
        served.wait_for(lambda states: len(states) == 2)
    served.wait_for(lambda states: [state["state"] for state in states].count("done") == 1)
    engine.finish(text="x")
    assert running.answer().status_code == 200
    assert len(engine.requests) == 1
    assert engine.cancels == 0


@pytest.mark.parametrize("is_writing", [False, True])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_client_that_leaves_stops_the_engine(
    served: Served, engine: HeldEngine, is_writing: bool, is_streamed: bool
) -> None:
    body = json.dumps(chat(stream=is_streamed)).encode()
    with served.socket() as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        engine.next_request()
        if is_writing:
            engine.begin()
            engine.say("Hello")
    engine.wait_for_cancel()
    asking = Asking(served, chat())
    engine.next_request()
    engine.finish(text="next")
    assert "next" in asking.answer().text


def test_leaving_after_the_last_event_stops_nothing(served: Served, engine: HeldEngine) -> None:
    for _ in range(3):
        with served.client() as client, client.stream("POST", CHAT, json=chat(stream=True)) as stream:
            engine.next_request()
            engine.begin()
            engine.finish(text="Hello")
            for line in stream.iter_lines():
                if line == "data: [DONE]":
                    break
    assert engine.cancels == 0


def test_an_engine_that_dies_in_mid_stream(served: Served, engine: HeldEngine) -> None:
    with served.client() as client:
        with client.stream("POST", CHAT, json=chat(stream=True)) as stream:
            engine.next_request()
            engine.begin()
            engine.say("Half an ans")
            engine.die()
            data = [data for data in data_of(stream.read()) if data != "[DONE]"]
        assert "The next request restarts it." in data[-1]["error"]["message"]
        asking = Asking(served, chat())
        engine.next_request()
        engine.die()
        refused = asking.answer()
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "2"
        again = Asking(served, chat())
        engine.next_request()
        engine.finish(text="Here again.")
        assert "Here again." in again.answer().text


def test_a_load_that_fails_is_tried_again_by_the_next_request(served: Served, engine: HeldEngine) -> None:
    engine.emit(Failed(None, "No room."))
    with served.client() as client:
        # The first one to notice loads again.
        counted = client.post("/v1/messages/count_tokens", json=chat())
    assert counted.status_code == 200
    assert len(engine.loads) == 1


def test_an_engine_that_hangs_is_ended_and_started_again(served: Served, engine: HeldEngine) -> None:
    asking = Asking(served, chat())
    engine.next_request()
    engine.emit(Silent("The engine has not answered for 10 seconds."))
    refused = asking.answer()
    assert refused.status_code == 503
    assert "started again" in refused.json()["error"]["message"]
    again = Asking(served, chat())
    engine.next_request()
    assert len(engine.loads) == 1
    engine.finish(text="Here again.")
    assert "Here again." in again.answer().text


def test_a_fault_of_the_server_ends_the_reply_that_nobody_follows(
    served: Served, engine: HeldEngine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "what nobody else may read"

    def fail(*_: object) -> None:
        raise ValueError(canary)

    asking = Asking(served, chat())
    engine.next_request()
    engine.begin()
    with monkeypatch.context() as patched:
        patched.setattr(AnswerMaker, "_take", fail)
        engine.say("Hello")
        engine.wait_for_cancel()
        broken = asking.answer()
    assert (broken.status_code, broken.json()["error"]["code"]) == (500, "internal_error")
    again = Asking(served, chat())
    engine.next_request()
    engine.finish(text="Here again.")
    assert "Here again." in again.answer().text
    assert canary not in capfd.readouterr().err


def test_what_a_request_leaves_open_is_as_the_settings_say() -> None:
    engine = QuickEngine()
    usual = ReplyOptions(SamplingOptions(temperature=0.5, top_k=3, rule="coupled"), draft_length=2, max_tokens=50)
    with serving(engine, usual=usual) as served, served.client() as client:
        client.post(CHAT, json=chat())
        client.post(CHAT, json=chat(temperature=0.9, max_tokens=7))
    first, second = engine.requests
    assert (first.sampling, first.draft_length, first.max_tokens) == (usual.sampling, 2, 50)
    assert second.sampling == SamplingOptions(temperature=0.9, top_k=3, rule="coupled")
    assert second.max_tokens == 7


def test_a_stop_string_ends_the_answer_before_it(served: Served, engine: HeldEngine) -> None:
    with (
        served.client() as client,
        client.stream("POST", CHAT, json=chat(stream=True, stop=["END", "x"])) as stream,
    ):
        engine.next_request()
        engine.begin()
        engine.say("One E")
        engine.say("N")
        engine.say("D two")
        engine.wait_for_cancel()
        answer = stream.read()
    assert text_of(answer) == "One "
    assert '"finish_reason":"stop"' in answer.decode()
    assert b"E" not in text_of(answer).encode()


def test_text_that_might_have_become_a_stop_string_comes_before_the_call_behind_it(
    served: Served, engine: HeldEngine
) -> None:
    with (
        served.client() as client,
        client.stream("POST", CHAT, json=chat(stream=True, stop="END")) as stream,
    ):
        engine.next_request()
        engine.begin()
        engine.say("To the E")
        engine.emit(msgspec.structs.replace(engine.round(""), calls=(READ,)))
        parts = stream.iter_bytes()
        answer = b""
        while b"call_1" not in answer:
            answer += next(parts)
        engine.finish()
        assert b"[DONE]" in b"".join(parts)
    assert text_of(answer) == "To the E"


def test_calls_are_passed_on_with_their_ids(served: Served, engine: HeldEngine) -> None:
    tool = {"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}
    asking = Asking(served, chat(tools=[tool], tool_choice={"type": "function", "function": {"name": "read"}}))
    request = engine.next_request()
    assert (request.tool_choice, request.chosen_tool) == ("required", "read")
    engine.begin()
    engine.emit(msgspec.structs.replace(engine.round(""), calls=(READ,)))
    engine.finish()
    (choice,) = asking.answer().json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["id"] == "call_1"


@pytest.mark.parametrize("is_last", [False, True])
def test_whoever_wants_one_call_gets_the_first_alone(served: Served, engine: HeldEngine, is_last: bool) -> None:
    tool = {"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}
    asking = Asking(served, chat(tools=[tool], parallel_tool_calls=False))
    engine.next_request()
    engine.begin()
    engine.say("I read.")
    calls = (READ, msgspec.structs.replace(READ, id="call_2"))
    if is_last:
        engine.emit(Finished(engine.running, "stop", "", "", 1, 1, None, calls=calls))
    else:
        engine.emit(msgspec.structs.replace(engine.round("And"), calls=calls))
        engine.emit(msgspec.structs.replace(engine.round(" more"), calls=calls[1:]))
        engine.wait_for_cancel()
    (choice,) = asking.answer().json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert [call["id"] for call in choice["message"]["tool_calls"]] == ["call_1"]
    assert choice["message"]["content"] == ("I read." if is_last else "I read.And")


def test_the_list_of_requests_and_its_stop(served: Served, engine: HeldEngine) -> None:
    with (
        served.client(headers={"user-agent": "agent/1.0 (\x1b[31m)".replace("\x1b", "")}) as client,
        client.stream("POST", CHAT, json=chat(stream=True)) as stream,
    ):
        engine.next_request()
        engine.begin()
        engine.say("Hello")
        (state,) = served.wait_for(lambda states: bool(states and states[0]["completion_tokens"]))
        assert state["client"] == "agent/1.0"
        assert state["state"] == "writing"
        assert state["acceptance"] == 0.75
        with served.client() as other:
            assert other.post(f"/slipstream/requests/{state['id']}/stop").status_code == 200
            assert other.post("/slipstream/requests/none/stop").status_code == 404
        engine.wait_for_cancel()
        assert text_of(stream.read()) == "Hello"
    assert served.states()[0]["state"] == "done"


def test_metrics(quick: Served) -> None:
    with quick.client() as client:
        client.post(CHAT, json=chat())
        metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = metrics.text.splitlines()
    assert "slipstream:generation_tokens_total 8" in lines
    assert "slipstream:spec_decode_num_accepted_tokens_total 6" in lines
    assert 'slipstream:request_success_total{finished_reason="stop"} 1' in lines
    assert 'slipstream:time_to_first_token_seconds_bucket{le="+Inf"} 1' in lines


def test_unknown_routes_and_methods_answer_in_json(quick: Served) -> None:
    with quick.client() as client:
        for path in ("/v1/nothing", "/v1/messages/nothing", "/"):
            assert client.get(path).json()["error"]["code"] == "unknown_route"
        wrong = client.get("/v1/messages")
        assert (wrong.status_code, wrong.json()["type"]) == (405, "error")


def test_many_clients_at_once(quick: Served) -> None:
    """64 connections, and with `--long` 1,000 requests: none is refused or broken."""
    requests = cases(200, 1000)
    statuses: list[int] = []

    def ask(count: int) -> None:
        with quick.client() as client:
            for number in range(count):
                answer = client.post(CHAT, json=chat(stream=bool(number % 2)))
                statuses.append(answer.status_code if "there." in answer.text else 0)

    counts = [len(range(index, requests, 64)) for index in range(64)]
    threads = [threading.Thread(target=ask, args=(count,)) for count in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * PATIENCE_S)
    assert statuses == [200] * requests
