"""The engine that makes the replies: a child process of this machine, or a server."""

from __future__ import annotations

from dataclasses import replace

from app.core.attached_engine import OF_SERVER, AttachedEngine
from app.core.pair_choice import Choose, PairChoice, PairOptions, choose_pair
from app.remote.address import ServerAddress, parse_address
from app.remote.engine import RemoteEngine, check_installed
from app.settings.effective import REMEMBERED, EffectiveSettings
from app.system import places
from app.system.running_server import RunningServer
from mlx_engine.client import EngineClient, EngineHandle
from mlx_engine.protocol.events import Load


def engine_for(pair: PairChoice) -> EngineHandle:
    """On this machine, or at the pair's server."""
    if pair.server is None:
        return EngineClient(pair.load, places.engine_log())
    return RemoteEngine(pair.server, pair.load)


def attached_engine(server: RunningServer, own: PairChoice) -> EngineHandle:
    """A server that runs here. own: what is loaded once it has ended."""
    return AttachedEngine(server, parse_address(server.url), engine_for(own), own.title)


def choose_attached(server: RunningServer) -> PairChoice:
    """What a server that runs here answers with."""
    address = parse_address(server.url)
    return PairChoice(OF_SERVER, address.shown, "", is_pocket=False, server=address, is_attached=True)


def choose_served(address: ServerAddress, model: str | None) -> PairChoice:
    """What a server answers with. model: one of its names; None: the one that it has loaded."""
    return PairChoice(Load(target=model or ""), address.shown, "", is_pocket=False, server=address)


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


def chooser(pair: PairChoice, options: PairOptions, attached: RunningServer | None = None) -> Choose:
    """What finds the model that a person names in a chat. pair: what the chat starts with. attached: the server
    that it uses for as long as that runs."""
    if pair.server is not None and attached is None:
        address = pair.server
        return lambda model, is_oversized: choose_served(address, model)

    def choose(model: str, is_oversized: bool) -> PairChoice:
        if attached is not None and model == attached.model and attached.is_running:
            return choose_attached(attached)
        return choose_pair(model, replace(options, is_oversized=is_oversized or options.is_oversized))

    return choose
