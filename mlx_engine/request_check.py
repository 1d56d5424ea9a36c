"""What a request has to be before a reply to it can begin. Knows no arrays, so any thread may ask."""

from __future__ import annotations

from mlx_engine.loading.generation_config import GenerationConfig
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import ContextOverflowError, RequestError
from mlx_engine.speculation.draft_choice import check_length
from mlx_engine.text.grammar import ReplyForm, check_form, check_start
from mlx_engine.text.prompt import ChatFormat, KnownReplies, RenderedPrompt

MOST_PROMPTS = 8
USUAL_CHARACTERS = 4
"""Of a token."""


class RequestCheck:
    """The conditions of one loaded pair."""

    def __init__(
        self,
        chat_format: ChatFormat,
        settings: GenerationConfig,
        vocab_size: int,
        context_tokens: int,
        known_replies: KnownReplies,
    ) -> None:
        """known_replies: those of the engine, which adds to them."""
        self._format, self._settings = chat_format, settings
        self._vocab_size, self._context_tokens = vocab_size, context_tokens
        self._known_replies = known_replies
        self._prompts: dict[int, tuple[events.Generate, RenderedPrompt]] = {}
        """Of requests that were checked last, whose replies will need them. By the request's id."""

    def checked(self, request: events.Generate) -> events.Checked:
        """A prompt that is too long is no error here. Raises RequestError for anything else."""
        if self._is_hopeless(characters := _characters(request)):
            return events.Checked(request.id, characters // USUAL_CHARACTERS, self._context_tokens)
        prompt = self._render(request)
        self._prompts[request.id] = request, prompt
        for id in list(self._prompts)[:-MOST_PROMPTS]:
            self._prompts.pop(id, None)
        self._settings.sampler(request.sampling, self._vocab_size, seed=0)
        if request.draft_length != "auto":
            check_length(request.draft_length)
        _check_limit(request.max_tokens)
        form = ReplyForm.of(request)
        if form.is_constrained:
            check_form(form)
        if form.schema is not None and prompt.reply_prefix:
            check_start(form.schema, prompt.reply_prefix)
        if form.must_call and prompt.reply_prefix:
            raise RequestError(
                "The reply has to call a tool, but the last message has begun it with text. "
                "Leave that message out, or let the model choose.",
                "messages",
            )
        return events.Checked(request.id, len(prompt.ids), self._context_tokens)

    def _is_hopeless(self, characters: int) -> bool:
        """Whether no tokens are long enough for it to fit. Encoding it would keep other requests waiting."""
        # A vocabulary is only looked through for texts that are long already.
        is_long = characters >= 2 * USUAL_CHARACTERS * self._context_tokens
        return is_long and characters >= self._format.longest_token * self._context_tokens

    def rendered(self, request: events.Generate) -> RenderedPrompt:
        """The prompt as the model reads it. Raises RequestError."""
        checked, prompt = self._prompts.pop(request.id, (None, None))
        return prompt if prompt is not None and checked == request else self._render(request)

    def _render(self, request: events.Generate) -> RenderedPrompt:
        if request.prompt is not None:
            return self._format.render_text(request.prompt)
        # A copy, because the engine's thread may add to them meanwhile.
        known = dict(self._known_replies)
        return self._format.render(request.messages, request.is_thinking, known, request.tools)

    def room(self, prompt: RenderedPrompt, max_tokens: int | None) -> int:
        """The most tokens that a reply may have, `max_tokens` at most. Raises RequestError."""
        room = self._context_tokens - len(prompt.ids)
        if room < 1:
            raise ContextOverflowError(
                f"The conversation is {len(prompt.ids)} tokens long, but the model's context is "
                f"{self._context_tokens} tokens. Shorten the message or start a new chat."
            )
        _check_limit(max_tokens)
        return min(room, max_tokens or room)


def _check_limit(max_tokens: int | None) -> None:
    if max_tokens is not None and max_tokens < 1:
        raise RequestError(f"A limit of {max_tokens} tokens is out of range: use 1 or more.")


def _characters(request: events.Generate) -> int:
    texts = [len(message.text) + len(message.thinking) for message in request.messages]
    texts += [len(call.arguments) for message in request.messages for call in message.calls]
    texts += [len(tool.description) + len(tool.parameters) for tool in request.tools]
    return sum(texts) + len(request.prompt or "")
