"""What the gauges make of rounds, pairs and settings."""

from __future__ import annotations

import pytest

from app.core.conversation import Conversation
from app.core.current_pair import CurrentPair
from app.core.gauges import Gauges
from app.core.reply_settings import ReplySettings
from app.settings.table import Settings
from app.store.chat_store import ChatStore
from mlx_engine.protocol.events import Generate, Ready, Round
from tests.app.tui.pilot import PAIR, choose
from tests.fakes.engine import FakeEngine


class Measured:
    """Gauges with a pair and settings, fed as the dialogue feeds them."""

    def __init__(self, draft: int = 4) -> None:
        self.engine = FakeEngine()
        self.engine.generate(Generate(id=1, messages=()))
        self.pair = CurrentPair(self.engine, PAIR, lambda message, **_: None)
        store = ChatStore.in_memory()
        self.settings = ReplySettings(Settings(draft=draft), Conversation(store))
        store.close()  # an empty chat stores nothing
        self.gauges = Gauges(self.pair, self.settings)

    def add(self, *rounds: Round) -> None:
        for done in rounds:
            self.pair.baseline.add(done)
            self.gauges.add(done, done.elapsed_s)

    def plain(self, round_s: float = 0.1) -> Round:
        return self.engine.round("", round_s=round_s, is_plain=True)

    def drafted(self, round_s: float = 0.2) -> Round:
        return self.engine.round("", 4, 3, round_s)


def test_gauges_keep_their_last_values() -> None:
    it = Measured()
    it.pair.loaded(Ready("t", {"assistant": "d"}, 4, "4-bit", 32_768, 17_000_000_000, None, 1.0))
    assert it.gauges.reading().memory_bytes == 17_000_000_000
    assert it.gauges.reading().speedup is None
    it.add(*[it.plain()] * 4, it.drafted())
    it.gauges.sample_pace()
    now = it.gauges.reading()
    assert now.ttft_s == pytest.approx(0.414)
    assert now.speedup == pytest.approx(8 / 0.6 / 10)
    assert now.drafting_speedup == pytest.approx(2.0)
    assert now.plain_tokens_per_s == pytest.approx(10.0)
    assert now.acceptance == pytest.approx(0.75)
    assert now.tokens_per_round == pytest.approx(8 / 5)
    assert now.tokens_per_s == pytest.approx(8 / 0.6)
    assert now.pace_samples == (now.tokens_per_s,)
    assert it.gauges.reading() == now, "frozen until the next round"


def test_a_reply_stopped_while_its_prompt_is_read_leaves_the_figures_of_the_last_one() -> None:
    it = Measured()
    stopped = Round((), 0, 0, False, 900, id=2, text="", thinking="", round_s=0.7, memory_bytes=5, elapsed_s=0.7)
    it.gauges.add(stopped, None)
    assert (it.gauges.reading().tokens_per_s, it.gauges.reading().ttft_s) == (None, None)
    it.add(*[it.plain()] * 4, it.drafted())
    before = it.gauges.reading()
    it.pair.baseline.add(stopped)
    it.gauges.add(stopped, None)
    it.gauges.sample_pace()
    now = it.gauges.reading()
    assert (now.tokens_per_s, now.ttft_s, now.speedup) == (before.tokens_per_s, before.ttft_s, before.speedup)
    assert (now.context_tokens, now.memory_bytes) == (900, 5)
    assert 0.0 not in now.pace_samples


def test_gauges_say_nothing_of_drafts_while_drafting_is_off() -> None:
    it = Measured()
    it.add(*[it.plain()] * 4, it.drafted())
    it.settings.set_drafting(0)
    off = it.gauges.reading()
    assert (off.speedup, off.acceptance, off.drafted_by_position) == (None, None, ())
    assert off.tokens_per_round == 1.0
    assert off.tokens_per_s == pytest.approx(10.0), "as without drafting, until it is measured"
    it.add(it.plain())
    assert it.gauges.reading().tokens_per_s == pytest.approx(10.0)
    assert it.gauges.reading().tokens_per_round == 1.0
    it.add(*[it.plain()] * 20)
    it.settings.set_drafting("auto")
    assert not it.gauges.reading().is_auto_off, "auto has not decided anything yet"
    it.add(it.drafted())
    assert it.gauges.reading().speedup == pytest.approx(20 / 10), "of drafting rounds alone"


def test_nothing_is_shown_of_drafts_while_auto_has_switched_drafting_off() -> None:
    it = Measured()
    it.settings.set_drafting("auto")
    it.add(*[it.drafted()] * 20)
    it.add(*[it.plain()] * 12)
    now = it.gauges.reading()
    assert now.is_auto_off
    assert (now.speedup, now.acceptance, now.tokens_per_round, now.drafted_by_position) == (None, None, 1.0, ())
    assert now.drafting_speedup is not None, "it explains why"


def test_what_was_measured_of_one_pair_says_nothing_of_the_next() -> None:
    it = Measured()
    it.pair.loaded(it.engine.ready())
    it.add(*[it.plain()] * 4, it.drafted())
    assert it.gauges.reading().speedup is not None
    it.pair.switch(choose("12b"), "12b")
    it.gauges.forget_pair()
    it.pair.loaded(it.engine.ready())
    fresh = it.gauges.reading()
    assert (fresh.speedup, fresh.plain_tokens_per_s, fresh.tokens_per_s, fresh.acceptance) == (None,) * 4
    it.add(it.drafted())
    assert it.gauges.reading().speedup is None, "the old pair's plain rounds are no baseline of this one"
    it.add(*[it.plain(round_s=0.05)] * 4)
    assert it.gauges.reading().plain_tokens_per_s == pytest.approx(20.0)
