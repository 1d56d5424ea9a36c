"""What is answered in place of an answer. The reader of a sentence here is the person behind a client, or the
client itself: several decide by these words what they do next."""

from __future__ import annotations

from typing import Any

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

    @property
    def body(self) -> dict[str, Any]:
        """In the form that all clients read, where no dialect has one of its own."""
        error = {"message": str(self), "type": self.type, "code": self.code, "param": self.param}
        return {"type": "error", "error": error}


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


class ServerEndedError(ServeError):
    """The server ends before the answer does."""

    status, type, code = 503, "server_error", "server_ended"
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("The server was ended before this answer was whole. Start it and send the request again.")


class BusyError(ServeError):
    """Too much waits already. Clients try again by themselves."""

    status, type, code = 429, "rate_limit_error", "too_many_requests"
    retry_after_s = 5


class WrongKeyError(ServeError):
    """The key is missing or wrong."""

    status, type, code = 401, "authentication_error", "invalid_api_key"


class ForbiddenError(ServeError):
    """A web page asks, or somebody by a name that is not this machine's."""

    status, type, code = 403, "permission_error", "forbidden"


class UnknownRouteError(ServeError):
    """There is nothing at this address."""

    status, type, code = 404, "not_found_error", "unknown_route"


class WrongMethodError(ServeError):
    """The address exists, but for other methods."""

    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class SlowRequestError(ServeError):
    """The request did not arrive in time."""

    status, type, code = 408, "invalid_request_error", "request_timeout"


class LargeRequestError(ServeError):
    """The body is larger than any prompt that fits."""

    status, type, code = 413, "request_too_large", "request_too_large"


class LargeHeadersError(ServeError):
    """No client needs so much."""

    status, type, code = 431, "invalid_request_error", "headers_too_large"


class BrokenServerError(ServeError):
    """A fault of the server."""

    code = "internal_error"
