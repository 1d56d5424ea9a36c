"""What OpenAI's APIs share in their answers."""

from __future__ import annotations

from typing import Any, Literal

from app.serve.answer import Answer, EndReason, Usage
from app.serve.errors import ServeError

FinishReason = Literal["stop", "length", "tool_calls"]

FINISH_REASONS: dict[EndReason, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "stop_string": "stop",
    "context": "length",
    # Not whole: an agent tries again, where after `stop` it would take the text for the answer.
    "cut_call": "length",
    "cancelled": "stop",
}


def usage_object(usage: Usage) -> dict[str, Any]:
    """As chat completions and completions write it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
    }


def figures(answer: Answer) -> dict[str, Any]:
    """What every answer ends with."""
    return {"usage": usage_object(answer.usage), "slipstream": answer.drafting.fields}


def error_object(error: ServeError) -> dict[str, Any]:
    """All four fields, or several clients show nothing of the message."""
    return {"error": {"message": str(error), "type": error.type, "code": error.code, "param": error.param}}
