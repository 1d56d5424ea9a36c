"""What a person is told where nothing is drafted because there is no drafter."""

from __future__ import annotations

from mlx_engine.protocol.events import Ready


def news_of_refusal(ready: Ready, before: Ready | None) -> str:
    """That the drafter is not used, and why; empty if that is no news."""
    if ready.refusal is None or (before is not None and before.refusal == ready.refusal):
        return ""
    return f"Replies go on without a drafter. {ready.refusal}"


def why_there_is_nothing(ready: Ready | None, to_do: str) -> str:
    """Why there is nothing `to_do` with drafts."""
    if ready is not None and ready.refusal is not None:
        return f"Drafting is off, so there is nothing to {to_do}. {ready.refusal}"
    return f"This model runs without a drafter, so there is nothing to {to_do}."
