"""A chat template in a process of its own: `python -m mlx_engine.text.template_worker`, frames on its pipes.

A template can be stuck in one call, where no check of the sandbox is reached. Then the kernel ends this process,
by processor time and, where the system has such a limit, by memory; nobody has to watch it. It ends by itself when
its pipe is closed, which is also how it notices that the engine is gone.
"""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import msgspec

from mlx_engine.protocol import wire
from mlx_engine.text.chat_template import ChatTemplate, characters
from mlx_engine.text.sandbox import Limits, TemplateFailedError

OWN_BYTES = 256 << 20
"""Address space of the interpreter itself, with room to spare."""


class Compile(msgspec.Struct, frozen=True, tag="compile"):
    """Take this template. Done, or Refused, follows."""

    source: str
    limits: Limits = Limits()


class Render(msgspec.Struct, frozen=True, tag="render"):
    """Render a conversation. Done, or Refused, follows."""

    messages: list[dict[str, Any]]
    variables: dict[str, Any]
    now_s: float
    """Since the epoch, for templates that write the date."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """What was rendered."""

    text: str = ""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Why the template cannot be used."""

    reason: str
    """A clause."""


Task = Compile | Render
Answer = Done | Refused


class Worker:
    """Answers one task after the other."""

    def __init__(self) -> None:
        self._template: ChatTemplate | None = None
        self._limits = Limits()

    def answer(self, task: Task) -> Answer:
        """The outcome; never raises for what a template does."""
        try:
            match task:
                case Compile(source, limits):
                    self._template, self._limits = None, limits
                    with limited(limits, 0, len(source)):
                        self._template = ChatTemplate(source, limits)
                    return Done()
                case Render(messages, variables, now_s):
                    assert self._template
                    limits, now = self._limits, datetime.fromtimestamp(now_s)
                    with limited(limits, len(messages), characters(messages)):
                        text = self._template.render(messages, now, **variables)
                        text.encode()
                    return Done(text)
        except (TemplateFailedError, MemoryError, UnicodeEncodeError) as error:
            return Refused(str(error) or "it takes too much memory")


@contextmanager
def limited(limits: Limits, messages: int, characters: int) -> Iterator[None]:
    """End this process after so much processor time; let it have so much memory, where the system can."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(ValueError, OSError):  # where there is no such limit, the sandbox still looks now and then
        resource.setrlimit(resource.RLIMIT_AS, (limits.limit_bytes(characters) + OWN_BYTES, hard))
    signal.setitimer(signal.ITIMER_PROF, limits.limit_s(messages) + limits.grace_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def main() -> None:
    """Serve until the pipe is closed."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends a process
    worker = Worker()
    with suppress(BrokenPipeError):
        while (task := wire.read(sys.stdin.buffer, Task)) is not None:
            wire.write(sys.stdout.buffer, worker.answer(task))


if __name__ == "__main__":
    main()
