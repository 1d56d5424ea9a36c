"""From the settings that hold to what a chat or a reply is started with."""

from __future__ import annotations

from dataclasses import asdict

from app.core.chat_options import ChatOptions
from app.core.chat_params import with_values
from app.core.pair_choice import PairChoice, PairOptions, choose_pair
from app.settings.effective import REMEMBERED, EffectiveSettings
from app.settings.table import Settings
from app.system import places
from mlx_engine.protocol.errors import SlipstreamError
from models import pocket
from models.errors import ModelsError


def pair_options_of(settings: Settings) -> PairOptions:
    """How the pair is loaded."""
    return PairOptions(
        drafter=settings.drafter,
        drafter_bits=settings.drafter_bits,
        start_length=settings.draft_start,
        is_compiled=settings.compile,
        is_wired=settings.wire,
        is_oversized=settings.oversized,
    )


def options_of(settings: Settings, pair: PairChoice) -> ChatOptions:
    """What the settings ask of a chat or a single reply."""
    options = ChatOptions(
        about_model=pocket.INTRODUCTION if pair.is_pocket else None,
        history_path=places.prompt_history(),
        log_path=places.app_log(),
        theme=settings.theme,
        send_key=settings.send_key,
        keys=settings.keys or {},
    )
    return with_values(options, asdict(settings))


def fallback_pair(effective: EffectiveSettings, pair: PairChoice, options: PairOptions) -> PairChoice | None:
    """What to load if a model chosen in an earlier chat is there but cannot be loaded."""
    if pair.is_pocket or effective.sources["model"] != REMEMBERED:
        return None
    try:
        return choose_pair(None, options)
    except (SlipstreamError, ModelsError):
        return None


def first_pair(effective: EffectiveSettings, options: PairOptions) -> tuple[PairChoice, str]:
    """The pair to begin with, and what to say about it; may be empty.

    A model that was chosen in an earlier chat may have gone since: the pocket pair then takes its place. One that
    a person names has to be there. Raises SlipstreamError, ModelsError.
    """
    model = effective.settings.model
    try:
        pair = choose_pair(model, options)
    except (SlipstreamError, ModelsError) as error:
        if effective.sources["model"] != REMEMBERED:
            raise
        return choose_pair(None, options), f"{error} The pocket model takes its place; /model lists the others."
    return pair, pair.notice
