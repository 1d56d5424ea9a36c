"""What a chat is started with, by the settings in effect."""

from __future__ import annotations

from app.core.chat_options import ChatOptions
from app.core.engines import first_served
from app.core.pair_choice import PairChoice, PairOptions, choose_pair
from app.core.reply_options import ReplyOptions, per_chat_values, reply_options
from app.settings.effective import REMEMBERED, EffectiveSettings
from app.settings.table import Settings
from app.system import places
from mlx_engine.protocol.errors import SlipstreamError
from models import pocket

ATTACHED = (
    "Attached to the server at {where}, so its model is in memory once. /requests shows what else it answers; "
    "`slipstream --server none` loads a model of its own."
)


def chat_options_of(settings: Settings, pair: PairChoice) -> ChatOptions:
    """The options of a chat with this pair."""
    attached = ATTACHED.format(where=pair.title) if pair.is_attached else None
    return ChatOptions(
        settings,
        about_model=pocket.INTRODUCTION if pair.is_pocket else attached,
        history_path=places.prompt_history(),
        log_path=places.app_log(),
        open_chats_path=places.open_chats(),
    )


def reply_options_of(settings: Settings) -> ReplyOptions:
    """The options of a single reply."""
    return reply_options(per_chat_values(settings))


def fallback_pair(effective: EffectiveSettings, pair: PairChoice, options: PairOptions) -> PairChoice | None:
    """The pair to load if the one chosen in an earlier chat cannot be loaded."""
    if pair.is_pocket or pair.is_served or effective.sources["model"] != REMEMBERED:
        return None
    try:
        return choose_pair(None, options)
    except SlipstreamError:
        return None


def first_pair(effective: EffectiveSettings, options: PairOptions) -> tuple[PairChoice, str]:
    """The pair to start with, and a notice about it, which may be empty.

    If the model chosen in an earlier chat is gone, the pocket pair replaces it. A model that the person names has
    to exist. Raises SlipstreamError.
    """
    if effective.has_server:
        return first_served(effective), ""
    model = effective.settings.model
    try:
        pair = choose_pair(model, options)
    except SlipstreamError as error:
        if effective.sources["model"] != REMEMBERED:
            raise
        return choose_pair(None, options), f"{error} Using the pocket model instead; /model lists the others."
    return pair, pair.notice
