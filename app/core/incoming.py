"""A reply as it comes, for front ends that write lines: events in, text out, and all that was measured."""

from __future__ import annotations

from app.core.no_drafter import news_of_refusal
from app.system.console import warn
from mlx_engine.client import raise_if_failed
from mlx_engine.protocol import events
from mlx_engine.protocol.stats import BaselineSpeed, ReplyStats


class Incoming:
    """What has come so far of one reply."""

    def __init__(self, pace: BaselineSpeed | None = None, ready: events.Ready | None = None) -> None:
        """pace: what earlier replies measured; ready: the pair, if it is loaded already."""
        self.text = ""
        self.thinking = ""
        self.token_ids: list[int] = []
        self.pace = pace or BaselineSpeed()
        self.stats = ReplyStats(self.pace)
        self.ready = ready
        self.started: events.Started | None = None
        self.finished: events.Finished | None = None

    def take(self, event: events.Event) -> str:
        """Fold one event in; the text it adds to the answer.

        Notices go to standard error. Raises SlipstreamError when there will be no more of this reply.
        """
        match event:
            case events.Ready():
                if news := news_of_refusal(event, self.ready):
                    warn(news)
                self.ready = event
            case events.Started():
                self.started = event
            case events.Round():
                self.pace.add(event)
                self.stats.add(event)
                self.token_ids += event.token_ids
                return self._grow(event)
            case events.Finished():
                self.finished = event
                return self._grow(event)
            case events.Notice(message=message):
                warn(message)
            case _:
                raise_if_failed(event)
        return ""

    def _grow(self, event: events.Round | events.Finished) -> str:
        self.text += event.text
        self.thinking += event.thinking
        return event.text
