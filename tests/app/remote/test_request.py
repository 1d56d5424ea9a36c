"""What is sent to which server, and that nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from app.remote import keys, kinds
from app.remote.address import ServerError, parse_address
from app.remote.finding import find_servers
from app.remote.kinds import ServerKind
from app.remote.request import GO_ON, server_request
from mlx_engine.protocol.events import Failed, Generate, Message, Notice, Ready, SamplingOptions, Tool, ToolCall
from tests.app.remote.conftest import TalkTo
from tests.app.remote.test_figures import is_like
from tests.fakes.chat_server import ChatServer, chunk, refusal, stream

HI = Message("user", "Hi")
STOPPED = (HI, Message("assistant", "Hello th"))
ALL = (*kinds.OF_A_PORT, kinds.VERTEX, kinds.BEDROCK, kinds.OTHER)


def body_of(
    kind: ServerKind, *messages: Message, context_tokens: int | None = None, **options: Any
) -> dict[str, Any]:
    return dict(server_request(Generate(1, messages or (HI,), **options), kind, "m", context_tokens).body)


def test_an_unknown_server_gets_the_words_that_all_know() -> None:
    assert body_of(kinds.OTHER) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_no_stop_texts_and_no_probabilities_are_ever_asked_for(kind: ServerKind) -> None:
    """Servers treat both in different ways, some while they draft in wrong ones."""
    assert not {"stop", "logprobs", "top_logprobs", "logit_bias", "n", "frequency_penalty"} & body_of(kind).keys()


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (kinds.VLLM, {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}),
        (kinds.LLAMA_CPP, {"top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1}),
        (kinds.TRANSFORMERS, {}),
        (kinds.LM_STUDIO, {"top_k": 5, "repeat_penalty": 1.1}),
        (kinds.LITERT_LM, {"top_k": 5}),
        (kinds.OLLAMA, {}),
        (kinds.OTHER, {}),
    ],
)
def test_sampling_options_have_the_servers_names_or_are_named_as_not_sent(
    kind: ServerKind, sent: dict[str, Any]
) -> None:
    options = SamplingOptions(temperature=0.5, top_k=5, top_p=0.9, min_p=0.1, repetition_penalty=1.1, seed=3)
    request = server_request(Generate(1, (HI,), options), kind, "m", None)
    body = dict(request.body)
    assert (body["temperature"], body["top_p"], body["seed"]) == (0.5, 0.9, 3)
    assert {name: body[name] for name in sent} == sent
    assert not {"top_k", "min_p", "repetition_penalty", "repeat_penalty"} - sent.keys() & body.keys()
    assert any("top_k was not sent" in notice for notice in request.notices) is (not sent)


def test_options_that_a_server_ignores_while_it_drafts_are_named() -> None:
    options = SamplingOptions(min_p=0.1, repetition_penalty=1.1)
    for kind in (kinds.MLX_VLM, kinds.VLLM_MLX):
        notices = server_request(Generate(1, (HI,), options), kind, "m", None).notices
        assert f"{kind.name} ignores repetition_penalty while it drafts." in notices
    assert "min_p" not in body_of(kinds.MLX_VLM, sampling=options)
    assert not server_request(Generate(1, (HI,)), kinds.MLX_VLM, "m", None).notices


@pytest.mark.parametrize(
    ("kind", "context_tokens", "limit"),
    [
        (kinds.MLX_LM, None, {"max_tokens": 32_768}),
        (kinds.TRANSFORMERS, None, {"max_tokens": 32_768}),
        (kinds.RAPID_MLX, 4096, {"max_tokens": 2048}),
        (kinds.VLLM, 4096, {}),
    ],
)
def test_without_a_limit_small_ones_of_servers_are_raised(
    kind: ServerKind, context_tokens: int | None, limit: dict[str, int]
) -> None:
    body = body_of(kind, context_tokens=context_tokens)
    assert {name: value for name, value in body.items() if name.startswith("max_")} == limit
    name = "max_completion_tokens" if kind is kinds.LITERT_LM else "max_tokens"
    assert body_of(kind, max_tokens=7)[name] == 7
    assert body_of(kind, max_tokens=9000, context_tokens=4096)[name] == 4096, "vLLM refuses more than its context"


@pytest.mark.parametrize(
    ("kind", "off", "on"),
    [
        (kinds.SLIPSTREAM, {"slipstream": {"draft": 0}}, {"slipstream": {"draft": "auto"}}),
        (kinds.VLLM_MLX, {"mllm_draft": False}, {"mllm_draft": True}),
        (kinds.MLX_LM, {"num_draft_tokens": 0}, {"num_draft_tokens": 0}),
        (kinds.LLAMA_CPP, {}, {}),
    ],
)
def test_drafting_is_switched_where_a_request_can(
    kind: ServerKind, off: dict[str, Any], on: dict[str, Any]
) -> None:
    plain = body_of(kinds.OTHER)
    for setting, expected in ((0, off), ("auto", on)):
        body = body_of(kind, draft_length=setting)
        switches = {"slipstream", "mllm_draft", "num_draft_tokens"}
        assert {name: body[name] for name in body if name in switches} == expected
    assert kind.can_switch_drafting == (off != on)
    assert bool(kind.why_fixed) == (off == on)
    assert plain == body_of(kinds.OTHER, draft_length=0)


def test_thinking_is_switched_in_the_words_of_each() -> None:
    assert body_of(kinds.VLLM, is_thinking=True)["chat_template_kwargs"] == {"enable_thinking": True}
    assert body_of(kinds.MLX_VLM)["enable_thinking"] is False
    assert body_of(kinds.OLLAMA)["reasoning_effort"] == "none"
    assert body_of(kinds.LM_STUDIO, is_thinking=True)["reasoning_effort"] == "medium"
    assert body_of(kinds.LITERT_LM)["reasoning_effort"] == "none"
    request = server_request(Generate(1, (HI,), is_thinking=True), kinds.TRANSFORMERS, "m", None)
    assert any("thinks is set at transformers serve" in notice for notice in request.notices)


def test_a_stopped_reply_goes_on_by_the_server_or_in_words() -> None:
    assert body_of(kinds.VLLM, *STOPPED)["continue_final_message"] is True
    assert body_of(kinds.VLLM, *STOPPED)["messages"][-1]["role"] == "assistant"
    request = server_request(Generate(1, STOPPED), kinds.MLX_LM, "m", None)
    assert request.body["messages"][-1] == {"role": "user", "content": GO_ON}
    assert any("asked to in words" in notice for notice in request.notices)
    while_thinking = (HI, Message("assistant", "", "hm"))
    assert body_of(kinds.MLX_LM, *while_thinking)["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (("Hel", "lo th", "ere"), "ere"),
        (("Hello there",), "ere"),
        (("Hello th",), ""),
        (("Howdy",), "Howdy"),
        (("H", "owdy"), "Howdy"),
        (("He",), "He"),
    ],
)
def test_what_llama_cpp_repeats_is_not_written_twice(
    server: ChatServer, talk_to: TalkTo, texts: tuple[str, ...], shown: str
) -> None:
    is_like(server, kinds.LLAMA_CPP)
    talk = talk_to(server)
    server.answers.append(stream(*map(chunk, texts), chunk(finish="stop")))
    talk.ask(*STOPPED)
    assert talk.text == shown


@pytest.mark.parametrize(
    ("stopped", "texts", "whole"),
    [
        ("One.\n\n", ("\n", "\nTwo."), "One.\n\nTwo."),
        ("One.\n\n", ("\n\nTwo.",), "One.\n\nTwo."),
        ("It turns ", (" drafting", " on"), "It turns drafting on"),
        ("One", (" two",), "One two"),
        ("One.\n", ("Two.",), "One.\nTwo."),
    ],
)
def test_what_stands_behind_the_last_word_is_not_written_twice_after_vllm_has_trimmed_it(
    server: ChatServer, talk_to: TalkTo, stopped: str, texts: tuple[str, ...], whole: str
) -> None:
    is_like(server, kinds.VLLM)
    talk = talk_to(server)
    server.answers.append(stream(*map(chunk, texts), chunk(finish="stop")))
    talk.ask(HI, Message("assistant", stopped))
    assert stopped + talk.text == whole


def test_tools_calls_and_results_are_passed_on() -> None:
    messages = (
        HI,
        Message("assistant", "", calls=(ToolCall("look", '{"at": 1}'), ToolCall("look", "{}", "own"))),
        Message("tool", "one", tool_name="look"),
        Message("tool", "two"),
    )
    body = body_of(kinds.OTHER, *messages, tools=(Tool("look", "Looks.", '{"type": "object"}'),))
    assert body["tools"] == [
        {"type": "function",
         "function": {"name": "look", "parameters": {"type": "object"}, "description": "Looks."}}
    ]  # fmt: skip
    assert [call["id"] for call in body["messages"][1]["tool_calls"]] == ["call_1_0", "own"]
    assert [message["tool_call_id"] for message in body["messages"][2:]] == ["call_1_0", "own"]


def test_schemas_are_passed_on_or_refused() -> None:
    schema = body_of(kinds.VLLM, schema='{"type": "object"}')["response_format"]
    assert schema["json_schema"]["schema"] == {"type": "object"}
    with pytest.raises(ServerError, match="does not keep to JSON schemas"):
        body_of(kinds.MLX_LM, schema='{"type": "object"}')


def test_the_stream_asks_for_its_usage_and_nothing_is_sent_but_what_was_meant(
    server: ChatServer, talk_to: TalkTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "secret-of-another")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: secret-of-another")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.invalid")
    talk_to(server).ask()
    assert server.bodies == [
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True,
         "stream_options": {"include_usage": True}}
    ]  # fmt: skip
    for headers in server.headers:
        assert "secret" not in str(dict(headers))
        assert not [name for name in headers if name.startswith(("authorization", "x-", "openai"))]


def test_a_key_goes_to_the_named_server_alone(
    server: ChatServer, talk_to: TalkTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPSTREAM_SERVER_KEY", "secret-1")
    talk = talk_to(server)
    server.answers.append(refusal(401, {"error": {"message": "no secret-1"}}))
    failed = talk.ask()
    assert isinstance(failed, Failed)
    assert "does not accept the key" in failed.message
    assert "secret-1" not in failed.message
    assert {headers["authorization"] for headers in server.headers} == {"Bearer secret-1"}
    server.headers.clear()
    assert [found.address.url for found in find_servers([server.port, 1])] == [f"{server.url}/v1"]
    assert not any("authorization" in headers for headers in server.headers)


def test_a_key_of_the_keychain_is_known_by_the_servers_address(monkeypatch: pytest.MonkeyPatch) -> None:
    class Keychain:
        stored: dict[tuple[str, str], str] = {}  # noqa: RUF012

        def set_password(self, service: str, user: str, key: str) -> None:
            self.stored[service, user] = key

        def get_password(self, service: str, user: str) -> str | None:
            if user == "locked:1":
                raise RuntimeError("locked")
            return self.stored.get((service, user))

    monkeypatch.setattr(keys, "_keyring", Keychain)
    studio = parse_address("studio.local:8765")
    keys.store_key(studio, "secret-2")
    assert keys.key_for(studio) == "secret-2"
    assert keys.key_for(parse_address("studio.local:1")) is None
    assert keys.key_for(parse_address("locked:1")) is None
    monkeypatch.setenv("SLIPSTREAM_SERVER_KEY", "secret-3")
    assert keys.key_for(studio) == "secret-3"


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("studio.local:8765", "http://studio.local:8765/v1"),
        ("http://studio.local:8765/", "http://studio.local:8765/v1"),
        ("127.0.0.1:1", "http://127.0.0.1:1/v1"),
        ("[::1]:1", "http://[::1]:1/v1"),
        ("192.168.1.7:8000", "http://192.168.1.7:8000/v1"),
        ("studio", "http://studio/v1"),
        ("models.example.com", "https://models.example.com/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1/", "https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1"),
    ],
)  # fmt: skip
def test_addresses(typed: str, url: str) -> None:
    assert parse_address(typed).url == url


@pytest.mark.parametrize(
    "typed", ["", "ftp://h", "http://", "http://h:port", "h:99999999", "http://h?key=1", "://"]
)
def test_what_is_no_address(typed: str) -> None:
    with pytest.raises(ServerError, match="no address"):
        parse_address(typed)


def test_an_address_with_a_key_is_refused_without_repeating_it() -> None:
    with pytest.raises(ServerError) as refused:
        parse_address("http://me:secret-4@h:1")
    assert "secret-4" not in str(refused.value)
    assert "h:1" in str(refused.value)


@pytest.mark.parametrize(
    ("host", "headers", "entry", "kind"),
    [
        ("h", {}, {"owned_by": "vllm"}, kinds.VLLM),
        ("h", {}, {"owned_by": "llamacpp"}, kinds.LLAMA_CPP),
        ("h", {}, {"owned_by": "slipstream"}, kinds.SLIPSTREAM),
        ("h", {"server": "BaseHTTP/0.6 Python/3.11.7"}, {"owned_by": "litert-lm"}, kinds.LITERT_LM),
        ("h", {"server": "mlx_vlm/0.7.10"}, {}, kinds.MLX_VLM),
        ("h", {"server": "BaseHTTP/0.6 Python/3.11.7"}, {}, kinds.MLX_LM),
        ("h", {}, {"owned_by": "openai", "created": 1_677_610_602}, kinds.LITELLM),
        ("h", {}, {"owned_by": "somebody"}, kinds.OTHER),
        ("europe-west1-aiplatform.googleapis.com", {}, {}, kinds.VERTEX),
        ("bedrock-mantle.eu-west-1.api.aws", {}, {}, kinds.BEDROCK),
    ],
)
def test_servers_are_recognised(
    host: str, headers: dict[str, str], entry: dict[str, Any], kind: ServerKind
) -> None:
    assert kinds.recognised(host, headers, ({"id": "m", **entry},)) is kind


@pytest.mark.parametrize(
    ("entry", "context"),
    [
        ({"max_model_len": 4096}, 4096),
        ({"context_window": 4096, "max_model_len": None}, 4096),
        ({"meta": {"n_ctx": 2048, "n_ctx_train": 4096}}, 2048),
        ({"state": "loaded", "loaded_context_length": 4096, "max_context_length": 131_072}, 4096),
        ({"state": "not-loaded", "max_context_length": 131_072}, None),
        ({}, None),
        ({"max_model_len": "many"}, None),
    ],
)
def test_the_context_is_what_the_server_says(
    server: ChatServer, talk_to: TalkTo, entry: dict[str, Any], context: int | None
) -> None:
    server.models = {"data": [{"id": "other"}, {"id": "m", "loaded": True, **entry}]}
    talk = talk_to(server)
    talk.engine.start()
    ready = talk.until(Ready)
    assert (ready.target, ready.context_tokens) == ("m", context)
    assert ready.server.models == ("other", "m")


@pytest.mark.parametrize("owner", ["library", "unsloth"])
def test_ollama_says_elsewhere_what_it_is_and_how_long_the_context_of_a_loaded_model_is(
    server: ChatServer, talk_to: TalkTo, owner: str
) -> None:
    """The form of its lists: middleware/openai.go and PsHandler in server/routes.go."""
    server.models = {"data": [{"id": "other:latest", "owned_by": owner}, {"id": "m", "owned_by": owner}]}
    server.pages = {
        "/": "Ollama is running",
        "/api/ps": {"models": [{"model": ["odd"]}, 7, {"name": "m", "model": "m", "context_length": 4096}]},
    }
    talk = talk_to(server)
    talk.engine.start()
    ready = talk.until(Ready)
    assert ready.server.name == "Ollama"
    assert (ready.target, ready.context_tokens) == ("m", 4096)
    assert any("may leave out the oldest messages" in notice for notice in talk.notices)


def test_a_notice_is_given_once(server: ChatServer, talk_to: TalkTo) -> None:
    talk = talk_to(server)
    options = SamplingOptions(top_k=3)
    talk.ask(sampling=options)
    assert len([event for event in talk.heard if isinstance(event, Notice)]) == 1
    talk.ask(sampling=options)
    assert not talk.notices
