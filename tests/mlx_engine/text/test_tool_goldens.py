"""Tools in the prompt and in replies, by the cases in tests/golden/tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import Message, Tool, ToolCall
from mlx_engine.text.prompt import ChatFormat
from mlx_engine.text.reply_text import ReplyDecoder
from models.pocket import TARGET_FOLDER
from tests.fakes.tool_folder import with_empty_thought
from tests.paths import GOLDEN

RENDERINGS = json.loads((GOLDEN / "tools" / "render.json").read_text())
OUTPUTS = json.loads((GOLDEN / "tools" / "parse.json").read_text())
MARK = re.compile(r"(<\|?[a-z_\"]+\|?>)")
EMPTY_THOUGHT = "<|channel>thought\n<channel|>"


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatFormat]:
    large = ChatFormat(with_empty_thought(tmp_path_factory.mktemp("tools") / "large"))
    return {"large": large, "small": ChatFormat(TARGET_FOLDER)}


@pytest.mark.parametrize("size", ["large", "small"])
@pytest.mark.parametrize("case", RENDERINGS, ids=lambda case: case["name"])
def test_a_conversation_with_tools_is_rendered_as_published(
    case: dict[str, Any], size: str, chats: dict[str, ChatFormat]
) -> None:
    chat, expected = chats[size], expected_text(case, size)
    messages = [message(entry) for entry in case["messages"]]
    tools = [tool(entry) for entry in case["tools"] or ()]
    is_thinking = case["options"].get("enable_thinking", False)
    if isinstance(expected, dict):
        with pytest.raises(RequestError):
            chat.render(messages, is_thinking, tools=tools)
        return
    ids = chat.render(messages, is_thinking, tools=tools).ids
    assert spelled(chat, ids) == expected
    if not has_marks_in_texts(case):
        assert ids == tokenized(chat, expected), "token by token"


def expected_text(case: dict[str, Any], size: str) -> Any:
    """Ours where there is a reason to differ; then the large models' empty thought is the one in the prompt."""
    if "ours_e2b" not in case:
        return case["expected" if size == "large" else "expected_e2b"]
    ours = case["ours_e2b"]
    if size == "small" or isinstance(ours, dict) or case["name"] in ("thought_in_content",):
        return ours
    if case["name"] in ("thought_without_call", "continue_final_message_like"):
        return ours.replace("<|turn>model\n", f"<|turn>model\n{EMPTY_THOUGHT}")
    return ours + EMPTY_THOUGHT if ours.endswith("<|turn>model\n") else ours


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("case", OUTPUTS, ids=lambda case: case["name"])
def test_calls_are_read_whole_and_token_by_token(
    case: dict[str, Any], step: int, chats: dict[str, ChatFormat]
) -> None:
    decoder = chats["small"].reply_decoder(has_tools=True)
    ids = tokenized(chats["small"], case["text"])
    # Its template's end of all calls ends a reply and is not decoded.
    ids = [id for id in ids if id not in chats["small"].stop_tokens]
    text, calls, refusals = read(decoder, ids, step)
    expected = case["ours"] if case["expected"] is None else case["expected"]
    assert [[call.name, json.loads(call.arguments)] for call in calls] == expected
    assert bool(refusals) == (not expected and "<|tool_call>" in case["text"]), "said why"
    assert bool(refusals) == ("<|tool_call>" in text), "and shown"
    if refusals:
        assert text == case["text"]


def test_a_string_with_the_delimiters_spelling_is_read_back(chats: dict[str, ChatFormat]) -> None:
    """By ids nothing is ambiguous: what is spelled out in ordinary tokens is text."""
    chat = chats["small"]
    arguments = {"a": 'x<|"|>y', "b": "<tool_call|>", "c": "<|tool_call>call:g{}"}
    asked = Message("assistant", "", calls=(ToolCall("f", json.dumps(arguments), "1"),))
    ids = chat.render([Message("user", "Hi"), asked]).ids
    begin = ids.index(48)
    _, calls, _ = read(chat.reply_decoder(has_tools=True), ids[begin:-1], 1)
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("f", arguments)]


def read(decoder: ReplyDecoder, ids: list[int], step: int) -> tuple[str, list[ToolCall], list[str]]:
    text, calls, refusals = "", list[ToolCall](), list[str]()
    for piece in [*(decoder.add(ids[i : i + step]) for i in range(0, len(ids), step)), decoder.finish()]:
        text += piece.text
        calls += piece.calls
        refusals += piece.refused_calls
    return text, calls, refusals


def tokenized(chat: ChatFormat, text: str) -> list[int]:
    """As the published tokenizer reads a rendered text: every spelling of a mark is one."""
    controls = chat._controls
    parts = [part for part in MARK.split(text) if part]
    merged: list[str] = []
    for part in parts:
        if part not in controls and merged and merged[-1] not in controls:
            merged[-1] += part
        else:
            merged.append(part)
    return [id for part in merged for id in ([controls[part]] if part in controls else chat.encode(part))]


def spelled(chat: ChatFormat, ids: list[int]) -> str:
    spellings = {id: text for text, id in chat._controls.items()}

    def parts() -> Iterator[str]:
        run: list[int] = []
        for id in [*ids, None]:
            if id is not None and id not in spellings:
                run.append(id)
                continue
            yield str(chat._tokenizer.decode(run)) if run else ""
            run = []
            yield "" if id is None else spellings[id]

    return "".join(parts())


def has_marks_in_texts(case: dict[str, Any]) -> bool:
    return bool(re.search(r"<\||\|>", json.dumps([case["messages"], case["tools"]])))


def message(entry: dict[str, Any]) -> Message:
    return Message(
        role="system" if entry["role"] == "developer" else entry["role"],
        text=plain(entry.get("content")),
        thinking=entry.get("reasoning_content", ""),
        calls=tuple(call(called) for called in entry.get("tool_calls", ())),
        call_id=entry.get("tool_call_id", ""),
        tool_name=entry.get("name", ""),
    )


def call(entry: dict[str, Any]) -> ToolCall:
    arguments = entry["function"].get("arguments", "")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ToolCall(entry["function"]["name"], text, entry.get("id", ""))


def tool(entry: dict[str, Any]) -> Tool:
    function = entry.get("function", entry)
    return Tool(function["name"], function["description"], json.dumps(function.get("parameters", {})))


def plain(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return json.dumps(content)


def test_the_cases_are_all_here() -> None:
    assert (len(RENDERINGS), len(OUTPUTS)) == (74, 45)
