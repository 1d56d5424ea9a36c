"""From the settings that hold to what a chat or a reply is started with."""

from __future__ import annotations

from app import places
from app.chat_options import ChatOptions
from app.pair_choice import Drafting, PairChoice, choose_pair
from app.settings.effective import REMEMBERED, Effective
from app.settings.table import Settings
from mlx_engine.errors import SlipstreamError
from mlx_engine.events import SamplingOptions
from models import pocket
from models.errors import ModelsError


def drafting_of(settings: Settings) -> Drafting:
    """How drafters are chosen."""
    return Drafting(settings.drafter, settings.drafter_bits, settings.draft_start)


def options_of(settings: Settings, pair: PairChoice) -> ChatOptions:
    """What the settings ask of a chat or a single reply."""
    return ChatOptions(
        sampling=SamplingOptions(
            temperature=settings.temp,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
            repetition_penalty=settings.repetition_penalty,
            seed=settings.seed,
            rule=settings.sampling,
        ),
        draft_length=settings.draft,
        max_tokens=settings.max_tokens,
        system=settings.system,
        is_thinking=settings.think,
        about_model=pocket.INTRODUCTION if pair.is_pocket else None,
        history_path=places.prompt_history(),
        log_path=places.app_log(),
        theme=settings.theme,
        send_key=settings.send_key,
        keys=settings.keys or {},
    )


def first_pair(effective: Effective, drafting: Drafting) -> tuple[PairChoice, str]:
    """The pair to begin with, and what to say about it; may be empty.

    A model that was chosen in an earlier chat may have gone since: the pocket pair then takes its place. One that
    a person names has to be there. Raises SlipstreamError, ModelsError.
    """
    model = effective.settings.model
    try:
        pair = choose_pair(model, drafting)
    except (SlipstreamError, ModelsError) as error:
        if effective.sources["model"] != REMEMBERED:
            raise
        return choose_pair(None, drafting), f"{error} The pocket model takes its place; f2 lists the others."
    return pair, pair.notice
