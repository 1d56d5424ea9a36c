"""The engine that makes the replies: a child process of this machine, or a server."""

from __future__ import annotations

from dataclasses import replace

from app.core.pair_choice import Choose, PairChoice, PairOptions, choose_pair
from app.remote.address import ServerAddress, parse_address
from app.remote.engine import RemoteEngine, check_installed
from app.settings.effective import REMEMBERED, EffectiveSettings
from app.system import places
from mlx_engine.client import EngineClient, EngineHandle
from mlx_engine.protocol.events import Load


def engine_for(pair: PairChoice, server: str | None) -> EngineHandle:
    """server: its address; None: this machine."""
    if server is None:
        return EngineClient(pair.load, places.engine_log())
    return RemoteEngine(parse_address(server), pair.load)


def choose_served(address: ServerAddress, model: str | None) -> PairChoice:
    """What a server answers with. model: one of its names; None: the one that it has loaded."""
    return PairChoice(Load(target=model or ""), address.shown, "", is_pocket=False, is_served=True)


def first_served(effective: EffectiveSettings) -> PairChoice:
    """Raises ServerError for an address that is none, and if what talks to servers is not installed.

    A model that was chosen in a chat, or is named in the file while the server is not, is one of this machine.
    """
    check_installed()
    settings, sources = effective.settings, effective.sources
    assert settings.server is not None
    in_file = str(effective.path.name)
    is_local = sources["model"] == REMEMBERED or (
        sources["model"].startswith(in_file) and not sources["server"].startswith(in_file)
    )
    return choose_served(parse_address(settings.server), None if is_local else settings.model)


def chooser(server: str | None, options: PairOptions) -> Choose:
    """What finds the model that a person names in a chat."""
    if server is None:
        return lambda model, is_oversized: choose_pair(
            model, replace(options, is_oversized=is_oversized or options.is_oversized)
        )
    address = parse_address(server)
    return lambda model, is_oversized: choose_served(address, model)
