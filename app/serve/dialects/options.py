"""The settings of an answer that the APIs share, and those that users add for local models.

`presence_penalty` and `frequency_penalty` are not read: many clients send them always, and the engine has no such
penalties. What would change the form of an answer is refused instead.
"""

from __future__ import annotations

from typing import Any

from app.serve.dialects.fields import Fields
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, DraftSetting, SamplingOptions

SEEDS = 1 << 32
"""Seeds that differ by this are the same to the engine."""
LEAST_TOP_P = 1e-6
"""0 means that only the most likely token is kept."""
MOST_TOKENS = 1 << 31
"""More than any context: such a limit is none."""
MAX_STOP_STRINGS = 64
THINKING_EFFORTS = ("medium", "high", "xhigh", "max")
"""An agent that asks for a title says `low`, `minimal` or `none`, and is answered without thoughts."""
ONE_ANSWER = "can only be 1: more than one answer is not made at once. Ask again for each."
ANY_OBJECT = '{"type":"object"}'


def read_sampling(body: Fields) -> SamplingOptions:
    """Raises BadRequestError, as all here do."""
    top_p, top_k, seed = body.number("top_p", 0, 1), body.whole_number("top_k"), body.whole_number("seed")
    penalty = body.number("repetition_penalty", 0, 100)
    return SamplingOptions(
        temperature=body.number("temperature", 0, 100),
        top_k=None if top_k is None else min(max(top_k, 0), MOST_TOKENS),
        top_p=None if top_p is None else max(top_p, LEAST_TOP_P),
        min_p=body.number("min_p", 0, 1) or 0.0,
        repetition_penalty=penalty or 1.0,
        seed=None if seed is None or seed < 0 else seed % SEEDS,
    )


def read_token_limit(body: Fields, *keys: str) -> int | None:
    """From the first of these fields that is there. -1 is no limit."""
    for key in keys:
        limit = body.whole_number(key)
        if limit is not None:
            if limit < 1 and limit != -1:
                raise body.error(
                    key, "is below 1. Send the most tokens to generate, or leave it out for no limit."
                )
            return None if limit == -1 else min(limit, MOST_TOKENS)
    return None


def read_text_or_texts(body: Fields) -> tuple[str, ...]:
    """`stop`, as OpenAI writes it: one text or a list of them."""
    stop = body.value("stop")
    if isinstance(stop, str):
        return tuple(filter(None, (body.text("stop"),)))
    if not isinstance(stop, list | None):
        raise body.error("stop", "cannot be read. Send a text, or a list of texts.")
    return read_stop(body, "stop")


def read_stop(body: Fields, key: str) -> tuple[str, ...]:
    """A list of texts; empty ones stop nothing."""
    texts = body.texts(key)
    if len(texts) > MAX_STOP_STRINGS:
        raise body.error(key, f"has more than {MAX_STOP_STRINGS} texts. Send fewer.")
    return tuple(filter(None, texts))


def read_is_thinking(body: Fields) -> bool:
    """Off unless asked for, by any of the switches that clients of local models use."""
    template, thinking, reasoning = (
        body.object(key) or Fields({}) for key in ("chat_template_kwargs", "thinking", "reasoning")
    )
    switches = (template.flag("enable_thinking"), body.flag("enable_thinking"), reasoning.flag("enabled"))
    kind, effort = thinking.text("type"), reasoning.text("effort")
    effort = body.text("reasoning_effort") or effort
    for switch in switches:
        if switch is not None:
            return switch
    return effort in THINKING_EFFORTS if kind is None else kind == "enabled"


def read_schema(form: Fields | None) -> str | None:
    """The schema of `response_format` or `text.format`, as JSON text."""
    if form is None:
        return None
    match form.value("type"):
        case None | "text":
            return None
        case "json_object":
            return form.schema("schema") if form.has("schema") else ANY_OBJECT
        case "json_schema":
            described = form.object("json_schema") or form
            if not described.has("schema"):
                raise described.error("schema", "is missing. Send the JSON schema that the answer must match.")
            return described.schema("schema")
        case _:
            raise form.error("type", "cannot be produced here. Send text, json_object or json_schema.")


def read_draft_length(body: Fields) -> DraftSetting:
    """From `{"slipstream": {"draft": 0}}`, which is this server's own."""
    own = body.object("slipstream")
    if own is None or own.value("draft") in (None, "auto"):
        return "auto"
    length = own.number("draft", 0, MAX_DRAFT_LENGTH)
    if length is None or not length.is_integer():
        raise own.error("draft", f"is no draft length. Send auto, or 0 to {MAX_DRAFT_LENGTH} tokens.")
    return int(length)


def refuse_if(body: Fields, key: str, harmless: tuple[Any, ...], reason: str) -> None:
    """Raise BadRequestError if a field asks for what no answer here has. harmless: values that ask for nothing."""
    value = body.value(key)
    if value is not None and not any(type(value) is type(one) and value == one for one in harmless):
        raise body.error(key, reason)
