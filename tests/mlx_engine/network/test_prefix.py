"""What is kept from turn to turn: as much as can be, and never anything that a cold start would not have read."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_engine.decode import DecodeOptions, Session, generate
from mlx_engine.network import kv_cache
from mlx_engine.network import prefix as prefix_module
from mlx_engine.network.chunk_length import ChunkLength
from mlx_engine.network.kv_cache import RESUME_RESERVE_ROWS
from mlx_engine.network.prefix import SHORTEST_SNAPSHOT_TOKENS, PrefixCache
from mlx_engine.protocol.prefill_chunk import ChunkRange
from mlx_engine.speculation.assistant_drafter import AssistantDrafter
from mlx_engine.speculation.drafter import Drafter
from mlx_engine.speculation.model_drafter import ModelDrafter
from tests.cases import cases
from tests.fakes import tiny
from tests.mlx_engine.helpers import GREEDY, ScriptedControl, session_for, tokens

pytestmark = pytest.mark.sampled(3)

TOLERANCE = 1e-4
DRAW = random.Random(11)


@pytest.fixture(scope="module", autouse=True)
def forgetful_caches() -> Iterator[None]:
    """Sliding caches with no more room than they must have: what can be forgotten, is."""
    with pytest.MonkeyPatch.context() as patch:
        for growth in ("GROWTH_ROWS", "SLIDING_GROWTH_ROWS"):
            patch.setattr(kv_cache, growth, 8)
        yield


def some_tokens(count: int) -> list[int]:
    return DRAW.choices(range(3, tiny.VOCAB), k=count)


@dataclass
class Chat:
    """A conversation with one target over one kept prefix, and the same one read cold."""

    layout: str
    drafter: Drafter | None = None

    def __post_init__(self) -> None:
        self.target = tiny.target(self.layout)
        self.prefix = PrefixCache(self.target)

    def turn(
        self, prompt: Sequence[int], branch_points: tuple[int, ...], max_tokens: int = 12
    ) -> tuple[int, list[int]]:
        """Tokens kept of the prompt, and the reply; both checked against a cold start."""
        kept = self.prefix.resume(prompt)
        options = DecodeOptions(GREEDY, frozenset(), max_tokens, ScriptedControl([3]), branch_points)
        reply = tokens(
            list(generate(Session(self.target, [self.drafter] if self.drafter else [], self.prefix), options))
        )
        cold = session_for(self.target, None, prompt)
        cold_options = DecodeOptions(GREEDY, frozenset(), max_tokens, ScriptedControl([0]))
        assert reply == tokens(list(generate(cold, cold_options)))
        assert self.prefix.tokens == [*prompt, *reply]
        self.check_scores(cold.prefix)
        return kept, reply

    def check_scores(self, cold: PrefixCache) -> None:
        """What the next token would be scored by is the same, to the last digits."""
        assert self.prefix.cache.frontier == cold.cache.frontier == len(cold.tokens) - 1
        scores = [
            np.array(self.target.logits(self.target.forward(mx.array([each.tokens[-1:]]), each.cache)))
            for each in (self.prefix, cold)
        ]
        for each in (self.prefix, cold):
            each.cache.rollback(1)
        np.testing.assert_allclose(scores[0], scores[1], atol=TOLERANCE)


@pytest.fixture(params=tiny.LAYOUTS)
def chat(request: pytest.FixtureRequest) -> Chat:
    return Chat(request.param)


def test_the_next_turn_reads_only_what_is_new(chat: Chat) -> None:
    prompt = some_tokens(90)
    for _ in range(4):
        begin = len(prompt)
        prompt = [*prompt, *some_tokens(20)]
        kept, reply = chat.turn(prompt, (begin, len(prompt)))
        if begin > 90:
            assert kept == begin - 1, "the reply's last token was never read; all before it was kept"
        prompt = [*prompt, *reply]


def passes_of_prefill(chat: Chat, prompt: Sequence[int], branch_points: tuple[int, ...]) -> list[int]:
    """How many tokens each pass read."""
    here = chat.prefix.resume(prompt)
    ends = list(chat.prefix.prefill(branch_points))
    return [end - begin for begin, end in zip([here, *ends], ends)]


def test_a_turn_reads_all_weights_once_before_its_first_round(chat: Chat) -> None:
    prompt = some_tokens(90)
    for _ in range(4):
        _, reply = chat.turn(prompt, (80, len(prompt) - 3), max_tokens=40)
        begin = len(prompt) + len(reply) + 2
        following = [*prompt, *reply, *some_tokens(50)]
        here = len(prompt) + len(reply) - 1
        assert passes_of_prefill(chat, following, (begin, len(following) - 3)) == [len(following) - 1 - here]
        prompt = following


def test_what_a_rollback_would_not_reach_is_stopped_for(chat: Chat) -> None:
    prompt = some_tokens(300)
    assert passes_of_prefill(chat, prompt, (100, 266, 290)) == [100, 166, 33]
    assert passes_of_prefill(chat, [*prompt[:266], 1, 1, 1], (266,)) == [2]


def test_regenerating_reads_one_token_again(chat: Chat) -> None:
    prompt = some_tokens(150)
    _, reply = chat.turn(prompt, (100, 150), max_tokens=80)
    kept, again = chat.turn(prompt, (100, 150), max_tokens=80)
    assert again == reply
    assert kept == len(prompt) - 2, "past the window, by the snapshot"


def test_a_reply_rendered_otherwise_is_read_again_from_the_models_turn_on(chat: Chat) -> None:
    prompt = some_tokens(150)
    chat.turn(prompt, (100, 146), max_tokens=80)
    without_thoughts = [*prompt[:146], *some_tokens(30)]
    kept, _ = chat.turn([*without_thoughts, *some_tokens(9)], (len(without_thoughts),))
    assert kept == 146


def test_an_edited_message_is_read_again_from_its_start_on(chat: Chat) -> None:
    first = some_tokens(150)
    _, reply = chat.turn(first, (100, 150), max_tokens=60)
    second = [*first, *reply, *some_tokens(40)]
    chat.turn(second, (len(first) + len(reply), len(second)), max_tokens=60)
    edited = [*first, *reply, *some_tokens(25)]
    kept, _ = chat.turn(edited, (len(first) + len(reply), len(edited)))
    begin = len(first) + len(reply)
    assert begin - SHORTEST_SNAPSHOT_TOKENS < kept <= begin
    older = [*first[:100], *some_tokens(70)]
    kept, _ = chat.turn(older, (100, len(older)))
    assert kept == 100, "snapshots of earlier turns are kept while they are small"


def test_a_stopped_prefill_goes_on_where_it_was(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_module, "PREFILL_CHUNK_TOKENS", 16)
    prompt = some_tokens(100)
    chat.prefix.resume(prompt)
    reading = chat.prefix.prefill()
    assert [next(reading) for _ in range(3)] == [16, 32, 48]
    kept, _ = chat.turn(prompt, ())
    assert kept == 48


def test_a_chunk_is_handed_over_before_the_one_before_it_is_waited_for(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    own_read = chat.prefix.read

    def read(tokens: Sequence[int]) -> mx.array:
        happened.append(f"read {len(tokens)}")
        return own_read(tokens)

    def logged(name: str, own: Any) -> Any:
        def call(*arrays: Any) -> None:
            happened.append(name)
            own(*arrays)

        return call

    monkeypatch.setattr(chat.prefix, "read", read)
    monkeypatch.setattr(chat.prefix, "_chunk", ChunkLength(ChunkRange(16, 16)))
    monkeypatch.setattr(mx, "eval", logged("wait", mx.eval))
    monkeypatch.setattr(mx, "async_eval", logged("hand over", mx.async_eval))
    chat.prefix.resume(some_tokens(60))
    reading = chat.prefix.prefill()
    next(reading)
    assert happened == ["read 16", "hand over"], "a stop is looked for before the second chunk"
    next(reading)
    assert happened[2:] == ["read 16", "hand over", "wait"], "for the first: two are under way at most"
    list(reading)
    assert happened[5:] == ["read 16", "hand over", "wait", "read 11", "wait"], "nothing is left to compute"


def test_what_was_waited_for_is_known_after_each_chunk(chat: Chat) -> None:
    """Else the time of a chunk would be taken for that of the one behind it."""
    chunk = ChunkLength(ChunkRange(16, 16))
    prefix = PrefixCache(chat.target, chunk)
    prompt = some_tokens(60)
    prefix.resume(prompt)
    assert [chunk.awaited_tokens for _ in prefix.prefill()] == [0, 16, 16, 27]
    prefix.resume([*prompt, *some_tokens(10)])
    assert [chunk.awaited_tokens for _ in prefix.prefill()] == [10]


def test_the_length_of_a_chunk_changes_no_score(chat: Chat) -> None:
    prompt = some_tokens(150)
    for length in (16, 48, 512):
        chat.prefix = PrefixCache(chat.target, ChunkLength(ChunkRange(length, length)))
        chat.turn(prompt, (100, 150))


def test_a_chunk_shrinks_in_the_middle_of_a_prompt(chat: Chat) -> None:
    chunk = ChunkLength(ChunkRange(64, 32))
    prefix = PrefixCache(chat.target, chunk)
    prefix.resume(some_tokens(200))
    reading = prefix.prefill()
    assert next(reading) == 64
    chunk.awaited_tokens = 64
    chunk.observe(5.0)
    assert [next(reading), next(reading)] == [96, 128]


def test_another_conversation_begins_anew(chat: Chat) -> None:
    chat.turn(some_tokens(100), (50, 100))
    kept, _ = chat.turn([1, *some_tokens(60)], (20, 61))
    assert kept == 0
    assert chat.prefix.snapshot_bytes > 0, "of this conversation; the other one's are gone"
    assert chat.prefix.resume(some_tokens(60)) == 0


STEP = st.tuples(st.sampled_from(["go on", "edit", "again", "strip"]), st.integers(1, 70), st.integers(1, 60))


@settings(max_examples=cases(8, 200))
@given(st.sampled_from(sorted(tiny.LAYOUTS)), st.booleans(), st.lists(STEP, min_size=2, max_size=6))
def test_any_course_of_a_conversation(layout: str, has_drafter: bool, steps: list[tuple[str, int, int]]) -> None:
    drafter = AssistantDrafter(tiny.assistant(layout), tiny.target(layout)) if has_drafter else None
    chat = Chat(layout, drafter)
    message, prompt, reply = [2], [2], [3]
    for step, count, max_tokens in steps:
        if step == "go on":
            message = [*prompt, *reply]
        elif step == "strip":
            message = [*prompt, *reply[len(reply) // 2 :]]
        if step != "again" or len(prompt) < 2:
            prompt = [*message, *some_tokens(count)]
        _, reply = chat.turn(prompt, (len(message), len(prompt)), max_tokens)


def test_a_draft_model_keeps_its_prefix_too() -> None:
    target, own = tiny.target("31b"), tiny.target("e2b")
    reads: list[int] = []

    class Watched:
        def __init__(self) -> None:
            self.facts, self.new_cache, self.logits, self.embed = own.facts, own.new_cache, own.logits, own.embed

        def forward(self, ids: mx.array, cache: object) -> mx.array:
            reads.append(ids.shape[1])
            return own.forward(ids, cache)  # type: ignore[arg-type]

        def read(self, ids: mx.array, cache: object) -> mx.array:
            reads.append(ids.shape[1])
            return own.read(ids, cache)  # type: ignore[arg-type]

    chat = Chat("31b", ModelDrafter(Watched()))
    assert chat.target.facts.vocab_size == target.facts.vocab_size
    prompt = some_tokens(200)
    _, reply = chat.turn(prompt, (150, 200))
    assert sum(reads) >= 199
    reads.clear()
    chat.turn([*prompt, *reply, *some_tokens(10)], ())
    assert max(reads) < 30, "the second turn is read from the end of the first"


def test_old_snapshots_go_when_they_take_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = Chat("31b")
    prompt = some_tokens(100)
    sizes = []
    for _ in range(4):
        begin = len(prompt)
        prompt = [*prompt, *some_tokens(20)]
        _, reply = chat.turn(prompt, (begin, len(prompt)))
        prompt = [*prompt, *reply]
        sizes.append(chat.prefix.snapshot_bytes)
    assert sizes == sorted(sizes)
    monkeypatch.setattr(prefix_module, "MORE_SNAPSHOTS_BYTES", 1)
    chat.turn([*prompt, *some_tokens(20)], (len(prompt), len(prompt) + 20))
    assert chat.prefix.snapshot_bytes < sizes[-1]
    row_bytes = 2 * 2 * 4 * 8 * 4  # sliding layers x heads x head size x float32, keys and values
    assert chat.prefix.snapshot_bytes <= 2 * row_bytes * 2 * (tiny.WINDOW + 1 + RESUME_RESERVE_ROWS)


def test_few_snapshots_are_kept_and_spread_over_a_long_chat() -> None:
    chat = Chat("31b")
    conversation: list[int] = []
    for _ in range(16):
        prompt = [*conversation, *some_tokens(20)]
        _, reply = chat.turn(prompt, (len(conversation), len(prompt)), max_tokens=6)
        conversation = [*prompt, *reply]
    frontiers = [snapshot.frontier for snapshot in chat.prefix._snapshots]
    assert len(frontiers) == prefix_module.MOST_SNAPSHOTS
    assert max(after - before for before, after in zip([0, *frontiers], frontiers)) < len(conversation) / 2
    middle = frontiers[3]
    kept, _ = chat.turn([*conversation[: middle + 1], *some_tokens(60)], ())
    assert middle <= kept <= middle + 1


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_only_what_leaves_something_behind_is_computed_for_all_rows(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tiny.target(layout)
    own, rows = mx.fast.scaled_dot_product_attention, []

    def counting(queries: mx.array, *arrays: mx.array, **options: Any) -> mx.array:
        rows.append(queries.shape[2])
        return own(queries, *arrays, **options)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", counting)
    cache = target.new_cache()
    target.read(mx.array([some_tokens(20)]), cache)
    owning = len(cache.layers)
    assert rows == [20] * (owning - 1) + [1] * (len(rows) - owning + 1)


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_the_last_row_alone_is_what_it_is_among_all_rows(layout: str) -> None:
    """Whatever is read at once, and wherever the sliding window stands."""
    target = tiny.target(layout)
    alone, among = target.new_cache(), target.new_cache()
    tokens = some_tokens(3 * tiny.WINDOW + 11)
    begin = 0
    for rows in (1, 2, tiny.WINDOW - 1, tiny.WINDOW + 1, 1, 5, tiny.WINDOW + 2):
        ids = mx.array([tokens[begin : begin + rows]])
        begin += rows
        read, expected = target.read(ids, alone), target.forward(ids, among)[:, -1:]
        assert read.shape == expected.shape
        np.testing.assert_allclose(np.array(read), np.array(expected), atol=1e-4)
        for own, other in zip(alone.arrays(), among.arrays(), strict=True):
            np.testing.assert_allclose(np.array(own), np.array(other), atol=1e-5)
