"""Everything known about one reply. The only place where front ends add up rounds."""

from __future__ import annotations

from mlx_engine.protocol.events import Finished, Part, Round, Started
from mlx_engine.protocol.stats import BaselineSpeed, ReplyStats, ServerStats


class ReplyFacts:
    """Text, tokens and figures of a reply so far."""

    def __init__(self, baseline: BaselineSpeed | None = None) -> None:
        """baseline: of this pair, measured across replies; rounds are added to it here."""
        self.text = ""
        self.thinking = ""
        self.token_ids: list[int] = []
        self._baseline = baseline or BaselineSpeed()
        self.rounds = ReplyStats(self._baseline)
        """Of an engine of this machine."""
        self._served: ServerStats | None = None
        """Of a server; None until it has said something."""
        self.started: Started | None = None
        """None until the prompt has been rendered."""
        self.finished: Finished | None = None
        """None until the reply is complete."""

    @property
    def stats(self) -> ReplyStats | ServerStats:
        """The figures of whoever makes the reply."""
        return self._served or self.rounds

    @property
    def prompt_tokens(self) -> int | None:
        """All of the prompt; None: not known, or not yet."""
        if self._served is not None:
            return self._served.reported.prompt_tokens
        return self.started.prompt_tokens if self.started else None

    @property
    def cached_tokens(self) -> int | None:
        """Those of them that needed no reading."""
        if self._served is not None:
            return self._served.reported.cached_tokens
        return self.started.cached_tokens if self.started else None

    def add(self, event: Started | Round | Part | Finished) -> None:
        match event:
            case Started():
                self.started = event
                return
            case Round():
                self._baseline.add(event)
                self.rounds.add(event)
                self.token_ids += event.token_ids
            case Part():
                self._of_server().add(event)
            case Finished():
                self.finished = event
                if event.reported is not None:
                    self._of_server().add(event)
        self.text += event.text
        self.thinking += event.thinking

    def _of_server(self) -> ServerStats:
        """The figures, which a server's first message makes those of a server."""
        if self._served is None:
            self._served = ServerStats()
        return self._served
