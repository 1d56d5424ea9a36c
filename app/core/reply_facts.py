"""Everything known about one reply. The only place where front ends add up rounds."""

from __future__ import annotations

from mlx_engine.protocol.events import Finished, Round, Started
from mlx_engine.protocol.stats import BaselineSpeed, ReplyStats


class ReplyFacts:
    """Text, tokens and figures of a reply so far."""

    def __init__(self, baseline: BaselineSpeed | None = None) -> None:
        """baseline: of this pair, measured across replies; rounds are added to it here."""
        self.text = ""
        self.thinking = ""
        self.token_ids: list[int] = []
        self._baseline = baseline or BaselineSpeed()
        self.stats = ReplyStats(self._baseline)
        self.started: Started | None = None
        """None until the prompt has been rendered."""
        self.finished: Finished | None = None
        """None until the reply is complete."""

    def add(self, event: Started | Round | Finished) -> None:
        match event:
            case Started():
                self.started = event
                return
            case Round():
                self._baseline.add(event)
                self.stats.add(event)
                self.token_ids += event.token_ids
            case Finished():
                self.finished = event
        self.text += event.text
        self.thinking += event.thinking
