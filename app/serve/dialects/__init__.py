"""The APIs that the server speaks, one class each: requests into `AnswerRequest`, answers into their JSON."""

from __future__ import annotations

from app.serve.dialect import Dialect
from app.serve.dialects.anthropic import AnthropicMessages
from app.serve.dialects.openai_chat import ChatCompletions
from app.serve.dialects.openai_completions import TextCompletions
from app.serve.dialects.openai_responses import Responses

MESSAGES_ROUTE = "/v1/messages"
"""Anthropic's, which also counts tokens and writes errors of its own form."""


def all_dialects() -> dict[str, Dialect]:
    """Every dialect, by its route."""
    return {
        "/v1/chat/completions": ChatCompletions(),
        "/v1/completions": TextCompletions(),
        "/v1/responses": Responses(),
        MESSAGES_ROUTE: AnthropicMessages(),
    }
