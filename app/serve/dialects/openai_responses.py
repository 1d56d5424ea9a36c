"""Responses: `POST /v1/responses`, which Codex and the newer SDKs speak. Nothing is stored between requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.serve.answer import Answer, AnswerPiece
from app.serve.dialect import AnswerHead, AnswerStream
from app.serve.dialects.conversation import joined
from app.serve.dialects.fields import Fields
from app.serve.dialects.openai_answer import error_object
from app.serve.dialects.openai_responses_input import read_input
from app.serve.dialects.openai_responses_stream import ResponseStream
from app.serve.dialects.openai_tools import read_tools
from app.serve.dialects.options import (
    read_draft_length,
    read_is_thinking,
    read_sampling,
    read_schema,
    read_text_or_texts,
    read_token_limit,
    refuse_if,
)
from app.serve.errors import ServeError
from app.serve.request import AnswerRequest

NOT_STORED = "refers to an earlier answer, and no answers are stored here. Send the whole conversation in input."


class Responses:
    """The dialect."""

    def read(self, body: Mapping[str, Any]) -> AnswerRequest:
        """Raises BadRequestError."""
        fields = Fields(body)
        _refuse_other_forms(fields)
        tools = read_tools(fields)
        text = fields.object("text")
        return AnswerRequest(
            messages=joined(read_input(fields), "input"),
            tools=tools.tools,
            tool_choice=tools.choice,
            is_single_call=tools.is_single_call,
            strict_tools=tools.strict,
            schema=read_schema(text.object("format") if text else None),
            sampling=read_sampling(fields),
            max_tokens=read_token_limit(fields, "max_output_tokens"),
            stop=read_text_or_texts(fields),
            is_thinking=read_is_thinking(fields),
            is_streamed=fields.flag("stream") or False,
            model=fields.text("model") or "",
            draft_length=read_draft_length(fields),
            places={"schema": "text.format", "messages": "input", **tools.places},
        )

    def whole(self, request: AnswerRequest, head: AnswerHead, answer: Answer) -> dict[str, Any]:
        stream = ResponseStream(request, head)
        stream.add(AnswerPiece(answer.text, answer.thinking, answer.calls))
        stream.end(answer)
        return stream.response

    def stream(self, request: AnswerRequest, head: AnswerHead) -> AnswerStream:
        return ResponseStream(request, head)

    def error(self, error: ServeError) -> dict[str, Any]:
        return error_object(error)


def _refuse_other_forms(fields: Fields) -> None:
    refuse_if(fields, "previous_response_id", ("",), NOT_STORED)
    refuse_if(fields, "conversation", ("",), NOT_STORED)
    refuse_if(
        fields, "prompt", (), "refers to a stored prompt, and none are stored here. Send it in instructions."
    )
    refuse_if(fields, "background", (False,), "is not possible here. Leave it out, and stream the answer.")
    refuse_if(fields, "top_logprobs", (0,), "cannot be given: drafting keeps no probabilities. Leave it out.")
