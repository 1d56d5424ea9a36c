"""The session that servers are compared on is the same for all, and each turn goes on from the one before."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from app.serve.dialects.openai_chat import ChatCompletions
from mlx_engine.text.prompt import ChatFormat
from tests.bench.agent_session import agent_session
from tests.bench.served_pair import POCKET, write_served_pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_served_pair(POCKET, tmp_path_factory.mktemp("pair")).target


def test_our_server_and_the_template_of_the_peers_read_the_same(folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    chat = ChatFormat(folder)

    for body in agent_session(0, 500, 8).turns[:6]:
        request = ChatCompletions().read(body)
        messages = json.loads(json.dumps(body["messages"]))
        for call in (call for message in messages for call in message.get("tool_calls", ())):
            # As peers do before they render.
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        theirs = tokenizer.apply_chat_template(messages, tools=body["tools"], add_generation_prompt=True)
        assert chat.render(request.messages, tools=request.tools).ids == theirs["input_ids"]


def test_each_turn_goes_on_from_the_one_before(folder: Path) -> None:
    turns = agent_session(0, 500, 8).turns

    for before, after in pairwise(turns):
        assert after["messages"][: len(before["messages"])] == before["messages"]
        assert after["tools"] == before["tools"]
