"""Completions: `POST /v1/completions`, which continues a text as it is, without the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.serve.answer import Answer, AnswerPiece
from app.serve.dialect import AnswerHead, AnswerStream
from app.serve.dialects.fields import Fields
from app.serve.dialects.openai_answer import FINISH_REASONS, error_object, figures
from app.serve.dialects.options import (
    ONE_ANSWER,
    read_draft_length,
    read_sampling,
    read_schema,
    read_text_or_texts,
    read_token_limit,
    refuse_if,
)
from app.serve.dialects.server_sent_events import COMMENT, DONE, event
from app.serve.errors import ServeError
from app.serve.request import AnswerRequest


class TextCompletions:
    """The dialect."""

    def read(self, body: Mapping[str, Any]) -> AnswerRequest:
        """Raises BadRequestError."""
        fields = Fields(body)
        _refuse_other_forms(fields)
        options = fields.object("stream_options")
        return AnswerRequest(
            prompt=_prompt(fields),
            schema=read_schema(fields.object("response_format")),
            sampling=read_sampling(fields),
            max_tokens=read_token_limit(fields, "max_tokens"),
            stop=read_text_or_texts(fields),
            is_streamed=fields.flag("stream") or False,
            includes_usage=bool(options and options.flag("include_usage")),
            model=fields.text("model") or "",
            draft_length=read_draft_length(fields),
            places={"schema": "response_format", "messages": "prompt"},
        )

    def whole(self, request: AnswerRequest, head: AnswerHead, answer: Answer) -> dict[str, Any]:
        choice = _choice(answer.text, FINISH_REASONS[answer.reason])
        return _head(head) | {"choices": [choice]} | figures(answer)

    def stream(self, request: AnswerRequest, head: AnswerHead) -> AnswerStream:
        return CompletionStream(request, head)

    def error(self, error: ServeError) -> dict[str, Any]:
        return error_object(error)


class CompletionStream:
    """Parts of one text, then `[DONE]`."""

    def __init__(self, request: AnswerRequest, head: AnswerHead) -> None:
        self._includes_usage = request.includes_usage
        self._head = _head(head)

    def begin(self) -> bytes:
        return COMMENT

    def wait(self) -> bytes:
        return COMMENT

    def add(self, piece: AnswerPiece) -> bytes:
        return event(self._head | {"choices": [_choice(piece.text)]}) if piece.text else b""

    def end(self, answer: Answer) -> bytes:
        facts = figures(answer)
        last = self._head | {"choices": [_choice("", FINISH_REASONS[answer.reason])]}
        if self._includes_usage:
            return event(last) + event(self._head | {"choices": []} | facts) + DONE
        return event(last | {"slipstream": facts["slipstream"]}) + DONE

    def fail(self, error: ServeError) -> bytes:
        return event(error_object(error))


def _prompt(fields: Fields) -> str:
    """A text, or a list with one text in it."""
    prompt = fields.value("prompt")
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise fields.error("prompt", "is a list. Send one text; token ids are not read.")
        (text,) = fields.texts("prompt")
    else:
        text = fields.text("prompt") or ""
    if not text:
        raise fields.error("prompt", "is empty. Send the text to continue.")
    return text


def _choice(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": 0, "logprobs": None, "finish_reason": reason}


def _head(head: AnswerHead) -> dict[str, Any]:
    return {
        "id": f"cmpl-{head.id}",
        "object": "text_completion",
        "created": head.created_s,
        "model": head.model,
    }


def _refuse_other_forms(fields: Fields) -> None:
    refuse_if(fields, "n", (1, 1.0), ONE_ANSWER)
    refuse_if(fields, "best_of", (1, 1.0), ONE_ANSWER)
    refuse_if(fields, "logprobs", (False,), "cannot be given: drafting keeps no probabilities. Leave it out.")
    refuse_if(fields, "logit_bias", ({}, []), "is not possible here. Leave it out.")
    refuse_if(fields, "echo", (False,), "is not possible here. Leave it out; the prompt is yours already.")
    refuse_if(fields, "suffix", ("",), "is not possible here: this model only continues texts. Leave it out.")
