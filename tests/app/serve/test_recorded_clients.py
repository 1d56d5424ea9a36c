"""What real clients sent is read, and each turn of theirs goes on from the one before."""

from __future__ import annotations

import pytest

from app.serve.dialect import Dialect
from app.serve.dialects.openai_chat import ChatCompletions
from app.serve.dialects.openai_responses import Responses
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import Message, ToolCall
from tests.app.serve.recorded import clients, recorded_requests

DIALECTS: dict[str, Dialect] = {"/v1/chat/completions": ChatCompletions(), "/v1/responses": Responses()}


def requests_of(client: str) -> list[AnswerRequest]:
    return [DIALECTS[path].read(body) for path, body in recorded_requests(client) if path in DIALECTS]


@pytest.mark.parametrize("client", clients())
def test_each_request_is_read(client: str) -> None:
    requests = requests_of(client)

    assert requests
    for request in requests:
        assert request.messages[-1].role in ("user", "tool")
        assert request.model == "gemma-4"


@pytest.mark.parametrize(
    ("client", "first", "second"), [("codex", 0, 1), ("codex_image", 0, 1), ("opencode", 1, 2), ("pi", 0, 1)]
)
def test_a_turn_goes_on_from_the_one_before(client: str, first: int, second: int) -> None:
    requests = requests_of(client)
    before, after = requests[first], requests[second]

    assert after.tools == before.tools
    assert after.messages[: len(before.messages)] == before.messages
    assert [message.role for message in after.messages[len(before.messages) :]] == ["assistant", "tool"]
    call, result = after.messages[len(before.messages) :]
    assert [one.id for one in call.calls] == [result.call_id]


def test_codex_gets_its_thoughts_and_calls_back_as_one_message() -> None:
    (*_, reply, result) = requests_of("codex")[1].messages

    assert reply.thinking
    assert not reply.text
    assert reply.calls == (ToolCall("exec_command", '{"p0":"xxx"}', "word word w"),)
    assert result.role == "tool"
    assert len(result.text) == 111


def test_codex_has_its_two_developer_messages_and_both_of_the_user_in_one_each() -> None:
    first = requests_of("codex")[0].messages

    assert [message.role for message in first] == ["system", "user"]
    assert len(first[0].text) == 17119 + 2135 + 341 + 2 * len("\n\n")


def test_tools_of_codex_in_a_namespace_are_tools_and_its_web_search_is_none() -> None:
    names = [tool.name for tool in requests_of("codex")[0].tools]

    assert names == [
        "exec_command",
        "write_stdin",
        "request_user_input",
        "multi_agent_v1::close_agent",
        "multi_agent_v1::resume_agent",
    ]


def test_a_picture_that_a_tool_of_codex_gives_is_named() -> None:
    result = requests_of("codex_image")[1].messages[-1]

    assert result == Message("tool", "[an image, which cannot be read here]", call_id="word word w")


def test_titles_have_a_schema_in_codex() -> None:
    title = requests_of("codex_tui")[1]

    assert title.schema is not None
    assert '"maxLength":36' in title.schema
    assert not title.tools
    assert not title.is_thinking


def test_pi_asks_for_thoughts_and_titles_of_opencode_do_not() -> None:
    assert requests_of("pi")[0].is_thinking
    title, main = requests_of("opencode")[:2]
    assert not title.is_thinking
    assert not main.is_thinking


def test_limits_and_usage_are_as_each_client_asks() -> None:
    pi, compacting = requests_of("pi")[0], requests_of("pi_compacted")[1]
    aider, commit_message = requests_of("aider")

    assert (pi.max_tokens, compacting.max_tokens, aider.max_tokens) == (8192, 13107, None)
    assert pi.includes_usage
    assert not aider.includes_usage
    assert aider.is_streamed
    assert not commit_message.is_streamed
    assert aider.sampling.temperature == 0


def test_a_schema_of_llm_is_kept_as_it_was_written() -> None:
    (request,) = requests_of("llm_schema")

    assert request.schema == '{"type":"object","properties":{"a":{"type":"integer"}},"required":["w"]}'
