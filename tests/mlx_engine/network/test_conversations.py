"""Several conversations over one target: each reads only what is new, and has the logits of a cold start."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_engine.decode import DecodeOptions, Session, generate
from mlx_engine.network import kv_cache
from mlx_engine.network import prefix as prefix_module
from mlx_engine.network.cache_budget import CacheBudget
from mlx_engine.network.chunk_length import ChunkLength
from mlx_engine.network.prefix import SHORTEST_SNAPSHOT_TOKENS, PrefixCache
from mlx_engine.network.target import Gemma4Target
from mlx_engine.protocol.prefill_chunk import ChunkRange
from mlx_engine.speculation.model_drafter import ModelDrafter
from mlx_engine.text.common_prefix import common_length
from tests.cases import cases
from tests.fakes import tiny
from tests.mlx_engine.helpers import GREEDY, ScriptedControl, session_for, tokens
from tests.mlx_engine.network.test_stored_rows import recalled, stored

TOLERANCE = 1e-4
ALWAYS_READ = 2
"""Tokens of a prompt that are read whatever is kept."""


@pytest.fixture(scope="module", autouse=True)
def forgetful_caches() -> Iterator[None]:
    """Sliding caches with no more room than they must have, and no mark is thinned out."""
    with pytest.MonkeyPatch.context() as patch:
        for growth in ("GROWTH_ROWS", "SLIDING_GROWTH_ROWS"):
            patch.setattr(kv_cache, growth, 8)
        patch.setattr(prefix_module, "MOST_SNAPSHOTS", 100)
        yield


def text(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(3, tiny.VOCAB), k=count)


@dataclass
class Client:
    """Sends prompts to one engine's cache, and compares each reply with a cold start."""

    target: Gemma4Target
    prefix: PrefixCache
    drafters: list[ModelDrafter] = field(default_factory=list)

    def ask(self, prompt: Sequence[int], *branch_points: int, max_tokens: int = 6) -> tuple[int, list[int]]:
        """Tokens kept, and the reply."""
        options = DecodeOptions(
            GREEDY,
            frozenset(),
            max_tokens,
            ScriptedControl([2 if self.drafters else 0]),
            (*branch_points, len(prompt)),
        )
        session = Session(self.target, self.drafters, self.prefix)
        kept = self.prefix.resume(prompt)
        reply = tokens(list(generate(session, options)))
        cold = session_for(self.target, None, prompt)
        assert reply == tokens(
            list(generate(cold, DecodeOptions(GREEDY, frozenset(), max_tokens, ScriptedControl([0]))))
        )
        self._check_logits(cold.prefix)
        return kept, reply

    def _check_logits(self, cold: PrefixCache) -> None:
        assert self.prefix.tokens == cold.tokens
        assert self.prefix.cache.frontier == cold.cache.frontier == len(cold.tokens) - 1
        logits = [
            np.array(self.target.logits(self.target.forward(mx.array([one.tokens[-1:]]), one.cache)))
            for one in (self.prefix, cold)
        ]
        for one in (self.prefix, cold):
            one.cache.rollback(1)
        np.testing.assert_allclose(logits[0], logits[1], atol=TOLERANCE)


def client(layout: str, budget: CacheBudget | None = None) -> Client:
    target = tiny.target(layout)
    return Client(target, PrefixCache(target, budget=budget))


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_two_chats_in_turn_read_only_their_new_messages(layout: str) -> None:
    here = client(layout)
    chats = [text(1, 120), text(2, 90)]
    for turn in range(4):
        for index in range(2):
            begin = len(chats[index])
            prompt = [*chats[index], *text(10 * turn + index, 15)]
            kept, reply = here.ask(prompt, begin)
            if turn:
                assert kept == begin - 1, "all but the reply's last token, which was never read"
            chats[index] = [*prompt, *reply]


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_what_two_clients_begin_with_is_read_once(layout: str) -> None:
    here = client(layout)
    system = text(1, 100)
    for seed in range(2, 5):
        kept, _ = here.ask([*system, *text(seed, 30)], len(system))
        assert kept == (len(system) if seed > 2 else 0)


def test_a_history_of_which_only_the_last_block_differs_is_read_from_that_block_on() -> None:
    """Past the window, behind another chat."""
    here = client("e2b")
    history, block = text(1, 200), text(2, 20)
    here.ask([*history, *block, *text(3, 22)], len(history), len(history) + len(block))
    here.ask(text(4, 80))
    prompt = [*history, *text(5, 20), *text(6, 22)]
    kept, _ = here.ask(prompt, len(history), len(history) + 20)
    assert kept == len(history)


def test_an_earlier_version_of_a_chat_is_still_here() -> None:
    here = client("31b")
    begin = text(1, 80)
    first = [*begin, *text(2, 40)]
    _, reply = here.ask(first, len(begin), max_tokens=20)
    edited = [*begin, *text(3, 40)]
    kept, _ = here.ask(edited, len(begin))
    assert kept == len(begin)
    kept, _ = here.ask([*first, *reply, *text(4, 9)], len(first) + len(reply))
    assert kept == len(first) + len(reply) - 1


def test_a_cancelled_prefill_is_kept_while_another_chat_runs() -> None:
    target = tiny.target("e4b")
    here = Client(target, PrefixCache(target, ChunkLength(ChunkRange(16, 16))))
    prompt = text(1, 100)
    here.prefix.resume(prompt)
    reading = here.prefix.prefill()
    assert [next(reading) for _ in range(4)] == [16, 32, 48, 64]
    here.ask(text(2, 50))
    kept, _ = here.ask(prompt)
    assert kept == 64


def test_the_least_recently_used_chat_goes_first() -> None:
    budget = CacheBudget()
    here = client("e2b", budget)
    chats = [text(seed, 60) for seed in range(1, 5)]
    for chat in chats[:3]:
        here.ask(chat)
    here.ask(chats[0])
    budget.most_bytes = budget.nbytes
    here.ask(chats[3])
    assert budget.nbytes - here.prefix.nbytes < budget.most_bytes
    kept = {index: here.prefix.tree.best(chats[index]) for index in range(3)}
    assert kept[0] > 50
    assert kept[1] < 50, "longest unused"


def test_the_running_conversation_is_never_dropped() -> None:
    budget = CacheBudget(most_bytes=1)
    here = client("e2b", budget)
    chat = text(1, 90)
    _, reply = here.ask(chat)
    kept, _ = here.ask([*chat, *reply, *text(2, 10)])
    assert kept == len(chat) + len(reply) - 1
    here.ask(text(3, 40))
    assert budget.nbytes == here.prefix.nbytes, "nothing but the running one"
    kept, _ = here.ask(chat)
    assert kept == 0


def test_a_draft_model_keeps_its_conversations_too() -> None:
    target, budget = tiny.target("31b"), CacheBudget()
    drafter = ModelDrafter(tiny.target("e2b"), budget=budget)
    here = Client(target, PrefixCache(target, budget=budget), [drafter])
    chats = [text(1, 120), text(2, 90)]
    for turn in range(3):
        for index in range(2):
            begin = len(chats[index])
            _, reply = here.ask([*chats[index], *text(10 * turn + index, 15)], begin)
            if turn:
                assert drafter._prefix._lent >= begin - 8, "but what it drafted last"
            chats[index] = [*chats[index], *text(10 * turn + index, 15), *reply]


def test_what_drafters_have_of_a_chat_goes_with_it() -> None:
    target, budget = tiny.target("31b"), CacheBudget()
    target.tap((1,))
    here = Client(target, PrefixCache(target, budget=budget))
    chats = [text(1, 120), text(2, 90)]
    for chat in chats:
        here.ask(chat)
    (parked,) = (node for node in here.prefix.tree.nodes() if node.tapped)
    (rows,) = parked.tapped
    assert rows.offset == parked.end
    assert parked.nbytes > rows.nbytes > 0
    here.ask([*chats[0], *text(3, 30)])
    assert rows.offset == parked.end, "a copy goes on where the reply is another one"
    budget.most_bytes = 1
    here.ask(chats[1])
    assert not any(node.tapped for node in here.prefix.tree.nodes())


STEP = st.tuples(
    st.sampled_from(["go on", "edit", "again", "new", "restart"]),
    st.integers(0, 5),
    st.integers(1, 40),
    st.integers(1, 24),
)


@settings(max_examples=cases(10, 300), deadline=None)
@given(
    st.sampled_from(sorted(tiny.LAYOUTS)),
    st.sampled_from([1, 40_000, 1 << 30]),
    st.booleans(),
    st.lists(STEP, min_size=2, max_size=8),
)
def test_any_tree_of_conversations(
    layout: str, most_bytes: int, has_drafter: bool, steps: list[tuple[str, int, int, int]]
) -> None:
    budget = CacheBudget(most_bytes)
    here = client(layout, budget)
    if has_drafter:
        here.drafters.append(ModelDrafter(tiny.target("e2b"), budget=budget))
    turns: list[tuple[list[int], list[int], list[int]]] = []
    """Of each turn: its prompt, what was read in the end, and the marks in it."""
    restarted_at = 0
    """The turns from this one on are kept with all their marks."""
    system = text(0, 30)
    for seed, (step, which, count, max_tokens) in enumerate(steps):
        prompt, whole, _ = turns[which % len(turns)] if turns else (system, system, [])
        begin = {"new": [], "edit": prompt[: len(prompt) // 2], "again": prompt}.get(step, whole)
        if step == "restart" and turns:
            here.prefix, restarted_at = reopened(here.prefix, here.target, budget), len(turns)
        following = [*begin, *([] if step == "again" and turns else text(seed + 1, count + 1))]
        kept, reply = here.ask(following, len(begin), max_tokens=max_tokens)
        if most_bytes > 1 << 20:
            agreed = [(common_length(following[:-ALWAYS_READ], read), marks) for _, read, marks in turns]
            kept_marks = [mark for common, marks in agreed[restarted_at:] for mark in marks if mark <= common]
            expected = max(kept_marks, default=0)
            assert expected - SHORTEST_SNAPSHOT_TOKENS < kept <= max((common for common, _ in agreed), default=0)
        else:
            assert budget.nbytes <= max(most_bytes, 3 * here.prefix.nbytes + 1_000_000)
        read = [*following, *reply][:-1]
        marks = [len(begin), len(following) - ALWAYS_READ, len(read)]
        turns.append((following, [*following, *reply], marks))
        assert_tree_is_sound(here.prefix)


def reopened(prefix: PrefixCache, target: Gemma4Target, budget: CacheBudget) -> PrefixCache:
    """What the next process has of the running conversation."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "chat.safetensors"
        stored(prefix, path)
        other = PrefixCache(target, budget=budget)
        other.adopt(recalled(path, target))
    return other


def assert_tree_is_sound(prefix: PrefixCache) -> None:
    """What is lent is read by the running conversation, and rows are as many as tokens."""
    lent = prefix.tree.path(prefix.tokens[: prefix._lent])
    assert (lent[-1].end if lent else 0) == prefix._lent
    for before, after in pairwise([prefix.tree.root, *lent]):
        assert after.parent is before
    for node in prefix.tree.nodes():
        assert len(node.readings) == len(node.tokens)
        assert (node.full is None) == (node in lent)
        for keys, values in [*(node.full or ()), *(node.sliding or ())]:
            assert keys.shape[2] == values.shape[2] == len(node.tokens)
