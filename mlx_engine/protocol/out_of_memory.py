"""Recognises that memory ran out, whatever reports it, and says what to do. Knows no MLX.

Since 0.32, MLX raises RuntimeError where Metal runs out of memory ("[METAL] Command buffer execution failed:
Insufficient Memory"), and where a buffer cannot be made ("[malloc] Unable to allocate"). Earlier versions ended
the process (SIGABRT), which the client reports.
"""

from __future__ import annotations

import re

from mlx_engine.protocol.events import Load

MEMORY_WORDS = re.compile(
    r"insufficient memory|outofmemory|out of memory|unable to allocate|attempting to allocate|bad_alloc"
    r"|resource limit .*exceeded",
    re.IGNORECASE,
)
DEVICE_MARK = "[metal]"
MOST_QUOTED_CHARACTERS = 200


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that the device or the machine had no more memory."""
    return isinstance(error, MemoryError) or bool(MEMORY_WORDS.search(str(error)))


def is_from_device(error: BaseException) -> bool:
    """Whether memory or the GPU failed (such as its time limit), and not what was to be computed."""
    return is_out_of_memory(error) or DEVICE_MARK in str(error).lower()


def memory_message(
    error: BaseException, load: Load, loaded_bytes: int, limit_bytes: int | None, is_reply: bool
) -> str:
    """For people: what happened, what is loaded, and the next smaller choice.

    loaded_bytes: in use when memory ran out. limit_bytes: what the device recommends at most; None: unknown.
    """
    when = "during the reply" if is_reply else f"while {load.name} was being loaded"
    drafters = [load.drafter_name(drafter) for drafter in load.drafters if "/" in drafter]
    loaded = " and ".join([load.name, *(f"its drafter {name}" for name in drafters)])
    limit = f" of at most {_gigabytes(limit_bytes)} for the GPU" if limit_bytes else ""
    choices = ["Close other programs", *(["start a new, shorter chat"] if is_reply else [])]
    choices += ["use --drafter none"] if drafters else []
    smaller = f"--model {load.smaller}" if load.smaller else "a smaller model or a lower precision"
    return (
        f"Memory ran out {when} ({quoted(error)}). {loaded} took {_gigabytes(loaded_bytes)}{limit}. "
        f"{', '.join(choices)}, or use {smaller}. Your next message restarts the engine."
    )


def memory_refusal(drafter: str, error: BaseException) -> str:
    """Why a drafter is left out for which there was no memory."""
    return (
        f"There is not enough memory for the drafter {drafter} ({quoted(error)}), so it is left out. Close other "
        "programs and load the model again, use --drafter-bits 4, or a smaller model."
    )


def quoted(error: BaseException) -> str:
    """The error in short."""
    return str(error)[:MOST_QUOTED_CHARACTERS].rstrip(".") or type(error).__name__


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
