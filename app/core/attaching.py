"""Whether the server that runs on this machine makes the replies, so that a model is in memory only once."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.pair_choice import PairOptions, choose_pair
from app.remote.address import ServerAddress, ServerError, parse_address
from app.remote.engine import check_installed
from app.remote.finding import look_at
from app.settings.effective import EffectiveSettings
from app.system import places
from app.system.running_server import RunningServer, find_server
from mlx_engine.protocol.errors import SlipstreamError

HOW_IT_LOADS = (
    "drafter", "drafter_bits", "drafter_vocabulary", "draft_start", "compile", "prefill_chunk", "chat_memory",
    "float32", "wire",
)  # fmt: skip
"""Settings that only an engine of one's own can follow. In the file they are the server's as well, so flags alone
count."""


@dataclass(frozen=True, slots=True)
class ServerToUse:
    """A server to use, or why there is none."""

    server: RunningServer | None = None
    notice: str = ""
    """About a server that runs and is not used; may be empty."""

    @property
    def address(self) -> ServerAddress | None:
        return parse_address(self.server.url) if self.server else None


def find_attachment(effective: EffectiveSettings, options: PairOptions) -> ServerToUse:
    """The server that runs here, unless the person named a server, another model, or how it is loaded.

    A model that was chosen in an earlier chat is not named. Waits a few seconds for a server that hangs.
    """
    if effective.settings.server is not None:
        return ServerToUse()
    server = find_server(places.server_file())
    if server is None:
        return ServerToUse()
    address = parse_address(server.url)
    runs = f"A server with {server.model} runs at {address.shown}."
    named = [name for name in HOW_IT_LOADS if effective.sources[name].startswith("--")]
    if effective.is_set_by_person("model") and not _has(server, effective.settings.model, options):
        named.insert(0, "model")
    if named:
        source = effective.sources[named[0]]
        return ServerToUse(None, f"{runs} This loads a model of its own, because of {source}.")
    try:
        check_installed()
    except ServerError as error:
        return ServerToUse(None, f"{runs} This loads the model once more. {error}")
    try:
        look_at(address, server.key)
    except ServerError as error:
        return ServerToUse(None, f"{runs} It cannot be used, so this loads a model of its own. {error}")
    return ServerToUse(server)


def _has(server: RunningServer, model: str | None, options: PairOptions) -> bool:
    try:
        return choose_pair(model, options).load.name == server.model
    except SlipstreamError:
        return False  # the person learns why when it is loaded
