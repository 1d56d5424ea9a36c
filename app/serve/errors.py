"""What is answered in place of an answer. The reader of a sentence here is the person behind a client, or the
client itself: several decide by these words what they do next."""

from __future__ import annotations

from mlx_engine.protocol.errors import SlipstreamError


class ServeError(SlipstreamError):
    """An answer with an HTTP status in place of a reply."""

    status = 500
    type = "server_error"
    code: str | None = None
    retry_after_s: int | None = None
    """Whole seconds, at most 60: several clients ignore anything else."""

    def __init__(self, message: str, param: str | None = None) -> None:
        """param: the field of the request that is wrong, such as `messages[2].content`."""
        super().__init__(message)
        self.param = param


class BadRequestError(ServeError):
    """The client can mend it."""

    status, type, code = 400, "invalid_request_error", "invalid_request"


class TooLongError(ServeError):
    """Prompt and context: clients compact when they read these words, each dialect its own, and this code."""

    status, type, code = 400, "invalid_request_error", "context_length_exceeded"

    def __init__(self, prompt_tokens: int, context_tokens: int) -> None:
        super().__init__(
            f"This model's maximum context length is {context_tokens} tokens. However, your messages resulted in "
            f"{prompt_tokens} tokens. Please reduce the length of the messages.",
            "messages",
        )
        self.prompt_tokens, self.context_tokens = prompt_tokens, context_tokens


class EngineFailedError(ServeError):
    """The engine failed or ended; the next request restarts it."""

    status, type, code = 503, "server_error", "engine_failed"
    retry_after_s = 2
