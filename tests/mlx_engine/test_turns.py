"""Conversations of several turns with an engine: what each of them reads, and that the words do not suffer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_engine.decode import DecodeOptions, generate
from mlx_engine.network import kv_cache
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import Target
from mlx_engine.protocol import events
from mlx_engine.protocol.events import Generate, Message, SamplingOptions
from mlx_engine.speculation.steering import ReplyControl
from tests.fakes.folders import write_pair
from tests.mlx_engine.helpers import ScriptedControl, session_for, tokens
from tests.mlx_engine.rig import Rig, only, token_ids

pytestmark = pytest.mark.slow

CONTEXT = 2048
CHANNEL, END_OF_CHANNEL, END_OF_TURN = 100, 101, 106
AROUND_A_MESSAGE = 12
"""Tokens of the template around a message of the person, and the two that are always read."""
EMPTY_THOUGHT_TOKENS = 6
"""Of the pocket tokenizer, which has no token for the word."""
EMPTY_THOUGHT = """\
{%- if add_generation_prompt and not enable_thinking -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}
"""


class ScriptedTarget:
    """A target that is made to say certain tokens at certain positions; everything else is its own."""

    def __init__(self, own: Target) -> None:
        self.facts, self.new_cache, self.embed = own.facts, own.new_cache, own.embed
        self._own = own
        self._position = 0
        self.script: dict[int, int] = {}

    def forward(self, ids: mx.array, cache: TargetCache) -> mx.array:
        self._position = cache.frontier + 1
        return self._own.forward(ids, cache)

    def read(self, ids: mx.array, cache: TargetCache) -> mx.array:
        return self._own.read(ids, cache)

    def logits(self, hidden: mx.array) -> mx.array:
        scores = self._own.logits(hidden)
        for row in range(len(scores)):
            if self._position + row in self.script:
                scores[row, self.script[self._position + row]] = 1e4
        return scores


@dataclass
class Talk:
    """A conversation: what was said, and what the engine read for it."""

    rig: Rig
    messages: list[Message] = field(default_factory=list)
    is_thinking: bool = False
    sampling: SamplingOptions = field(default_factory=SamplingOptions)

    def __post_init__(self) -> None:
        self.target = ScriptedTarget(self.rig.engine._target)
        self.rig.engine._target = self.target  # type: ignore[assignment]
        self.rig.engine._prefix = PrefixCache(self.target)

    def ask(self, text: str, max_tokens: int = 60, *, stop_after: int | None = None) -> events.Started:
        """One turn; the reply becomes part of the conversation."""
        self.messages.append(Message("user", text))
        return self.reply(max_tokens, stop_after=stop_after)

    def reply(self, max_tokens: int = 60, *, stop_after: int | None = None) -> events.Started:
        """The reply to the last message."""
        request = Generate(1, tuple(self.messages), self.sampling, 4, max_tokens, self.is_thinking)
        control = ReplyControl(4)
        emit, rounds = self.rig.engine._emit, 0

        def stopping(event: events.Event) -> None:
            nonlocal rounds
            rounds += isinstance(event, events.Round)
            control.is_cancelled |= stop_after is not None and rounds >= stop_after
            emit(event)

        self.rig.engine._emit = stopping
        emitted = self.rig.ask(request, control)
        self.rig.engine._emit = emit
        said = [event for event in emitted if isinstance(event, events.Round | events.Finished)]
        self.thinking = "".join(event.thinking for event in said)
        self.messages.append(Message("assistant", "".join(event.text for event in said)))
        (started,) = only(events.Started, emitted)
        self.ids = token_ids(emitted)
        self.check_against_a_cold_start(started)
        return started

    def check_against_a_cold_start(self, started: events.Started) -> None:
        prompt = self.rig.engine._prefix.tokens[: started.prompt_tokens]
        greedy = self.rig.engine._settings.sampler(SamplingOptions(), self.target.facts.vocab_size, seed=0)
        options = DecodeOptions(greedy, frozenset(), len(self.ids), ScriptedControl([0]))
        assert tokens(list(generate(session_for(self.target, None, prompt), options))) == self.ids

    def drop_reply(self) -> None:
        self.messages.pop()

    def edit(self, text: str) -> None:
        self.messages[-2:] = [Message("user", text)]

    def length_of(self, text: str) -> int:
        return len(self.rig.engine._format.encode(text))


@pytest.fixture(scope="module", autouse=True)
def forgetful_caches() -> Iterator[None]:
    """Sliding caches with no more room than they must have: what can be forgotten, is."""
    with pytest.MonkeyPatch.context() as patch:
        for growth in ("GROWTH_ROWS", "SLIDING_GROWTH_ROWS"):
            patch.setattr(kv_cache, growth, 8)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """One pair whose template opens the model's turn as small variants do, one as large ones do."""
    pairs = {name: write_pair(tmp_path_factory.mktemp(name), CONTEXT) for name in ("small", "large")}
    for target, _ in pairs.values():
        # A random model would say marks and stops all the time.
        quiet = [id for id in range(END_OF_TURN + 1) if id not in (CHANNEL, END_OF_CHANNEL)]
        settings = {"do_sample": False, "suppress_tokens": quiet}
        (target / "generation_config.json").write_text(json.dumps(settings))
    template = pairs["large"][0] / "chat_template.jinja"
    template.write_text(template.read_text().rstrip("\n") + "\n" + EMPTY_THOUGHT)
    return pairs


@pytest.fixture
def small(folders: dict[str, tuple[Path, Path]]) -> Talk:
    return Talk(Rig(*folders["small"]))


@pytest.fixture
def large(folders: dict[str, tuple[Path, Path]]) -> Talk:
    return Talk(Rig(*folders["large"]))


def read(started: events.Started) -> int:
    return started.prompt_tokens - started.cached_tokens


def test_a_turn_reads_the_new_message_and_the_template_around_it(small: Talk) -> None:
    small.ask("How do I turn drafting off, and what happens then?")
    for text in ("And on again?", "What does acceptance mean?", "Thank you, that was all."):
        assert read(small.ask(text)) <= small.length_of(text) + AROUND_A_MESSAGE


def test_what_was_generated_is_not_split_anew(small: Talk) -> None:
    small.ask("Hello there")
    reply = small.ids
    small.ask("Go on")
    begin = small.rig.engine._prefix.tokens.index(reply[0])
    assert any(
        small.rig.engine._prefix.tokens[at : at + len(reply)] == reply
        for at in range(begin, len(small.rig.engine._prefix.tokens))
    )
    assert small.rig.engine._format.encode(small.messages[1].text) != reply, "random tokens are no canonical text"


def test_an_empty_thought_block_costs_the_last_reply_and_no_more(large: Talk) -> None:
    large.ask("How do I turn drafting off, and what happens then?", 90)
    for text in ("And on again?", "What does acceptance mean?"):
        last = len(large.ids)
        assert read(large.ask(text, 90)) <= last + large.length_of(text) + AROUND_A_MESSAGE + EMPTY_THOUGHT_TOKENS


def test_thoughts_are_told_apart_and_are_dropped_from_the_history(small: Talk) -> None:
    small.is_thinking = True
    first = small.rig.engine._format.render([Message("user", "Think about it")], is_thinking=True)
    name = small.rig.engine._format.encode("thought\n")
    thoughts = small.rig.engine._format.encode("First of all, I look at the question.\n")
    script = [CHANNEL, *name, *thoughts, END_OF_CHANNEL]
    at = len(first.ids)
    small.target.script = dict(enumerate(script, at))
    small.ask("Think about it", 120)
    assert small.thinking == "First of all, I look at the question.\n"
    assert "First of all" not in small.messages[-1].text
    assert small.messages[-1].text
    small.target.script = {}
    answer = len(small.ids) - len(script)
    text = "And now?"
    assert read(small.ask(text)) <= answer + small.length_of(text) + AROUND_A_MESSAGE
    shown = small.rig.engine._prefix.tokens
    assert CHANNEL not in shown[: at + answer]


def test_thoughts_without_an_end_are_thoughts(small: Talk) -> None:
    prompt = small.rig.engine._format.render([Message("user", "Hm")]).ids
    small.target.script = {len(prompt): CHANNEL}
    small.ask("Hm", 20)
    assert small.messages[-1].text == ""
    assert small.thinking


def test_after_a_stop_everything_is_kept(small: Talk) -> None:
    small.ask("How do I turn drafting off, and what happens then?", 200, stop_after=12)
    text = "Never mind. And on?"
    assert read(small.ask(text)) <= small.length_of(text) + AROUND_A_MESSAGE


def test_after_an_edit_the_turns_before_are_kept(small: Talk) -> None:
    small.ask("How do I turn drafting off, and what happens then?", 150)
    small.ask("Is it slow?", 150)
    small.edit("Is it quick, then?")
    assert read(small.reply(150)) <= small.length_of("Is it quick, then?") + AROUND_A_MESSAGE


def test_regenerating_reads_two_tokens(small: Talk) -> None:
    small.ask("How do I turn drafting off, and what happens then?", 150)
    first = small.ids
    small.drop_reply()
    assert read(small.reply(150)) == 2
    assert small.ids == first


def test_another_seed_regenerates_another_reply(small: Talk) -> None:
    small.check_against_a_cold_start = lambda started: None  # type: ignore[method-assign]
    small.sampling = SamplingOptions(temperature=1.0, seed=1)
    small.ask("Hello", 40)
    first = small.ids
    small.drop_reply()
    small.sampling = SamplingOptions(temperature=1.0, seed=2)
    assert read(small.reply(40)) == 2
    assert small.ids != first


def test_a_failure_in_the_middle_leaves_nothing_behind(small: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    small.ask("Hello", 20)
    monkeypatch.setattr(small.target, "logits", lambda hidden: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        small.ask("And then?")
    monkeypatch.undo()
    small.messages = small.messages[:2]
    started = small.ask("And then?")
    assert started.cached_tokens == 0


def test_a_stopped_reply_goes_on_as_if_it_had_not_been_stopped(small: Talk) -> None:
    small.ask("How do I turn drafting off, and what happens then?", 80)
    whole, text = small.ids, small.messages[-1].text
    small.drop_reply()
    small.reply(30)
    assert small.ids == whole[:30]
    begun = small.messages[-1].text
    assert read(small.reply(50)) == 2, "the one that was never read, and the one before it"
    assert small.ids == whole[30:]
    assert begun + small.messages[-1].text == text
    small.messages[-2:] = [Message("assistant", text)]
    question = "And on again?"
    assert read(small.ask(question)) <= small.length_of(question) + AROUND_A_MESSAGE


def test_two_chats_in_turn_read_only_their_new_messages(small: Talk) -> None:
    """What was generated in the one is not split anew after the other."""
    other = Talk(small.rig)
    other.target = small.target
    small.rig.engine._prefix.forget()
    talks = (small, other)
    prefix = small.rig.engine._prefix = PrefixCache(small.target)
    for talk, text in zip(talks, ("How do I turn drafting off, and what happens then?", "Hello there")):
        talk.ask(text)
    for text in ("And on again?", "What does acceptance mean?"):
        for talk in talks:
            assert read(talk.ask(text)) <= talk.length_of(text) + AROUND_A_MESSAGE
    assert small.rig.engine._prefix is prefix


def test_a_budget_of_nothing_keeps_the_running_conversation_alone(folders: dict[str, tuple[Path, Path]]) -> None:
    rig = Rig(*folders["small"], conversation_bytes=0)
    hello, again = (Message("user", text) for text in ("Hello", "How do I turn drafting off?"))

    def kept(*messages: Message) -> int:
        return only(events.Started, rig.ask(Generate(1, messages, SamplingOptions(), 4, 8)))[0].cached_tokens

    assert kept(hello) == 0
    assert kept(hello) > 0, "the running one"
    assert kept(again) < 8, "what both begin with"
    assert kept(hello) < 8
