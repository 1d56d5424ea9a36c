"""Two replies to one message, without and with drafting: what is asked, and how they compare."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.comparison import Comparison, requests_to_compare
from app.core.reply_options import ReplyOptions
from mlx_engine.protocol.events import Message, SamplingOptions
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.fakes.engine import FakeEngine
from tests.mlx_engine.rig import Rig

MESSAGES = (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Why?"))


def compared(*texts: str, is_over: bool = True) -> Comparison:
    """A comparison whose sides have said `texts`."""
    engine = FakeEngine()
    comparison = Comparison(engine, requests_to_compare(MESSAGES, ReplyOptions(), 4, (1, 2)))
    engine.on_event = comparison.hear
    comparison.start()
    for text in texts:
        engine.say(text)
        if is_over:
            engine.finish()
    return comparison


def test_both_sides_are_asked_the_same() -> None:
    options = ReplyOptions(SamplingOptions(temperature=0.7), max_tokens=900, is_thinking=True)
    off, on = requests_to_compare((*MESSAGES, Message("assistant", "Because.")), options, "auto", (1, 2))
    assert (off.draft_length, on.draft_length) == (0, "auto")
    assert off.messages == on.messages == MESSAGES
    assert off.sampling == on.sampling
    assert off.sampling.rule == "coupled"
    assert off.sampling.seed is not None
    assert off.sampling.temperature == 0.7
    assert off.max_tokens == on.max_tokens == 512
    assert on.is_thinking


@given(st.text("ab", max_size=8), st.text("ab", max_size=8))
def test_the_first_difference(off: str, on: str) -> None:
    at = compared(off, on).difference
    if off == on:
        assert at is None
    else:
        assert at is not None
        assert off[:at] == on[:at]
        assert off[at : at + 1] != on[at : at + 1]


def test_a_text_that_still_grows_is_not_different() -> None:
    comparison = compared("Hello there.")
    assert comparison.difference is None
    assert "same so far" in comparison.result


@pytest.mark.slow
def test_the_pocket_pair_says_the_same_on_both_sides() -> None:
    rig = Rig(TARGET_FOLDER, DRAFTER_FOLDER)
    options = ReplyOptions(SamplingOptions(temperature=1.0), max_tokens=30)
    requests = requests_to_compare((Message("user", "What is acceptance?"),), options, 4, (1, 2))
    comparison = Comparison(FakeEngine(), requests)
    for request in requests:
        for event in rig.ask(request):
            comparison.hear(event)
    assert comparison.off.text
    assert comparison.difference is None
    assert comparison.off.stats.drafted == 0
    assert comparison.on.stats.drafted
