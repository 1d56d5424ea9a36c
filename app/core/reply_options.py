"""How a reply is made. The fields have the names of the engine's `Generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.settings.table import Settings, per_chat
from mlx_engine.protocol.events import DraftSetting, Generate, Message, SamplingOptions


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """The fields of `Generate` that a person sets, and the system prompt."""

    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    draft_length: DraftSetting = "auto"
    max_tokens: int | None = None
    is_thinking: bool = False
    system: str | None = None
    schema: str | None = None
    """A JSON schema that replies match, as JSON text."""

    def request(self, id: int, messages: tuple[Message, ...], chat_id: int | None = None) -> Generate:
        """messages: including the system prompt. chat_id: of the stored chat; None: it is not stored."""
        return Generate(
            id,
            messages,
            self.sampling,
            self.draft_length,
            self.max_tokens,
            self.is_thinking,
            schema=self.schema,
            chat_id=chat_id,
        )


def per_chat_values(settings: Settings) -> dict[str, Any]:
    """The settings that a chat may change, by name."""
    return {name: getattr(settings, name) for name in per_chat()}


def reply_options(values: Mapping[str, Any]) -> ReplyOptions:
    """values: as `per_chat_values` returns them."""
    return ReplyOptions(
        sampling=SamplingOptions(
            temperature=values["temp"],
            top_k=values["top_k"],
            top_p=values["top_p"],
            min_p=values["min_p"],
            repetition_penalty=values["repetition_penalty"],
            seed=values["seed"],
            rule=values["sampling"],
        ),
        draft_length=values["draft"],
        max_tokens=values["max_tokens"],
        is_thinking=values["think"],
        system=values["system"] or None,
    )
