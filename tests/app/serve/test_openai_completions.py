"""Completions, which continue a text."""

from __future__ import annotations

from typing import Any

import pytest

from app.serve.answer import AnswerPiece
from app.serve.dialects.openai_completions import TextCompletions
from app.serve.errors import BadRequestError, EngineFailedError
from tests.app.serve.scripted import HEAD, answer_of, data_of, streamed

COMPLETIONS = TextCompletions()
PIECES = (AnswerPiece(text="two, "), AnswerPiece(), AnswerPiece(text="three"))


@pytest.mark.parametrize("prompt", ["one, ", ["one, "]])
def test_a_prompt_is_continued_as_it_is(prompt: Any) -> None:
    body = {"model": "m", "prompt": prompt, "max_tokens": 5, "stop": "\n", "temperature": 0, "logprobs": None}

    request = COMPLETIONS.read(body)

    assert request.prompt == "one, "
    assert not request.messages
    assert (request.max_tokens, request.stop, request.sampling.temperature) == (5, ("\n",), 0)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [5, 6]}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"n": 2}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 0}, "logprobs"),
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
    ],
)
def test_what_it_cannot_do_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refusal:
        COMPLETIONS.read({"prompt": "one, "} | fields)

    assert refusal.value.param == param


def test_stream_and_whole_agree() -> None:
    request = COMPLETIONS.read({"prompt": "one, ", "stream_options": {"include_usage": True}})

    *chunks, last, done = data_of(streamed(COMPLETIONS, request, PIECES, "length"))
    whole = COMPLETIONS.whole(request, HEAD, answer_of(PIECES, "length"))

    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["two, ", "three", ""]
    assert chunks[-1]["choices"] == [{"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert whole["choices"] == [{"text": "two, three", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert whole["object"] == last["object"] == "text_completion"
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert last["slipstream"] == whole["slipstream"]
    assert done == "[DONE]"


def test_usage_is_left_out_where_it_is_not_asked_for() -> None:
    *chunks, _ = data_of(streamed(COMPLETIONS, COMPLETIONS.read({"prompt": "one, "}), PIECES))

    assert not any("usage" in chunk for chunk in chunks)
    assert chunks[-1]["slipstream"]["accepted_tokens"] == 8


def test_a_failure_ends_the_stream() -> None:
    request = COMPLETIONS.read({"prompt": "one, "})

    *_, last = data_of(streamed(COMPLETIONS, request, PIECES, error=EngineFailedError("It ended.")))

    assert last["error"]["message"] == "It ended."
