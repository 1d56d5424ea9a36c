"""Runs a folder's chat template within limits: it cannot reach anything, run for ever or fill the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from time import process_time
from typing import Any

import jinja2

from mlx_engine.text.sandbox import Limits, Sandbox, TemplateFailedError

MAX_TEMPLATE_CHARACTERS = 1 << 20


class ChatTemplate:
    """One template. Raises TemplateFailedError if it cannot be compiled."""

    def __init__(
        self, source: str, limits: Limits | None = None, clock: Callable[[], float] = process_time
    ) -> None:
        """clock: by default the processor's time, so that a busy machine does not make a template fail."""
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise TemplateFailedError(f"it is longer than {MAX_TEMPLATE_CHARACTERS:,} characters")
        self._sandbox = Sandbox(limits or Limits(), clock)
        try:
            self._template = self._sandbox.compiled(source)
        except (jinja2.TemplateError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise TemplateFailedError(_reason(error)) from None

    def render(self, messages: Sequence[dict[str, Any]], now: datetime | None = None, **variables: Any) -> str:
        """The conversation as text. now: for templates that write the date. Raises TemplateFailedError."""
        self._sandbox.now = (lambda: now) if now else datetime.now
        self._sandbox.start(len(messages), characters(messages))
        try:
            # transformers passes these two as well, and templates ask whether they are defined.
            return self._template.render(messages=messages, **{"tools": None, "documents": None} | variables)
        except Exception as error:  # the template is a program, and may fail in any way
            raise TemplateFailedError(_reason(error)) from None


def characters(messages: Sequence[dict[str, Any]]) -> int:
    """The length of a conversation's texts."""
    return sum(len(message.get("content") or "") for message in messages)


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it takes too much memory"
    return str(error)[:300] or type(error).__name__
