"""A conversation that goes to disk and back is the same to the last bit, in all layouts of the family."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_engine.decode import DecodeOptions, Session, generate
from mlx_engine.files.chat_cache_file import (
    CacheFacts,
    CacheFileError,
    RowsPart,
    open_cache_file,
    read_head,
    read_tensors,
    write_cache_file,
)
from mlx_engine.files.chat_cache_folder import ChatCacheFolder
from mlx_engine.files.chat_cache_parts import read_parts, write_chat
from mlx_engine.network import kv_cache, stored_rows
from mlx_engine.network.prefix import Conversation, PrefixCache
from mlx_engine.network.stored_rows import check_facts, joined, reach, read_conversation, rows_to_store
from mlx_engine.network.target import Gemma4Target
from tests.fakes import tiny
from tests.mlx_engine.helpers import GREEDY, ScriptedControl, tokens

pytestmark = pytest.mark.sampled(6)

DRAW = random.Random(23)


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sliding caches drop their oldest rows soon."""
    for growth in ("GROWTH_ROWS", "SLIDING_GROWTH_ROWS"):
        monkeypatch.setattr(kv_cache, growth, 8)


@pytest.fixture(params=tiny.LAYOUTS)
def target(request: pytest.FixtureRequest) -> Gemma4Target:
    return tiny.target(request.param)


def some_tokens(count: int) -> list[int]:
    return DRAW.choices(range(3, tiny.VOCAB), k=count)


def turn(
    target: Gemma4Target, prefix: PrefixCache, new: Sequence[int], max_tokens: int = 12, before: Sequence[int] = ()
) -> None:
    """A message and its reply. before: the conversation so far, if it is not in `prefix`."""
    conversation = before or prefix.tokens
    begin = len(conversation)
    prefix.resume([*conversation, *new])
    options = DecodeOptions(GREEDY, frozenset(), max_tokens, ScriptedControl([0]), (begin, len(prefix.tokens) - 3))
    tokens(list(generate(Session(target, [], prefix), options)))


def talked(target: Gemma4Target, turns: int = 3) -> PrefixCache:
    prefix = PrefixCache(target)
    for _ in range(turns):
        turn(target, prefix, some_tokens(60), 45)
    return prefix


def stored(prefix: PrefixCache, path: Path) -> CacheFacts:
    rows = rows_to_store(prefix.conversation)
    facts = CacheFacts("model", rows.tokens, rows.spans, rows.frontiers)
    write_chat(ChatCacheFolder(path.parent), path, facts, rows.sliding, rows.full, None, lambda *part: False)
    return facts


def recalled(path: Path, target: Gemma4Target) -> Conversation:
    with open_cache_file(path) as file:
        head = read_head(path, file)
        return read_conversation(head, read_tensors(file, head), read_parts(path, head.facts), target)


def logits_after(target: Gemma4Target, prefix: PrefixCache, prompt: Sequence[int]) -> tuple[int, bytes]:
    """How much of the prompt was kept, and the bits of the logits behind it."""
    kept = prefix.resume(prompt)
    for _ in prefix.prefill():
        pass
    hidden = target.forward(mx.array([prompt[-1:]]), prefix.cache)
    return kept, bytes(memoryview(target.logits(hidden)))  # type: ignore[arg-type]


def edits(conversation: Sequence[int]) -> Iterator[list[int]]:
    """What may be asked of a reopened chat."""
    yield [*conversation, *some_tokens(20)]  # the next message
    yield [*conversation[:-3], *some_tokens(30)]  # a reply that is rendered a little differently
    yield [*conversation[:-48], *some_tokens(9)]  # another reply, from where the model's turn begins
    yield [*conversation[:-105], *some_tokens(40)]  # another message
    yield [*conversation[:4], *some_tokens(40)]  # another chat


@pytest.mark.parametrize("edit", range(5))
def test_logits_are_those_of_the_process_that_never_ended(
    target: Gemma4Target, edit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_rows, "MOST_READ_AGAIN", 50)  # its messages are long
    running = talked(target)
    facts = stored(running, tmp_path / "file")
    prompt = list(edits(running.tokens))[edit]
    expected = running.reach(prompt)
    reopened = PrefixCache(target)
    reopened.adopt(recalled(tmp_path / "file", target))
    assert reopened.reach(prompt) == reach(facts, prompt, tiny.WINDOW) == expected
    assert logits_after(target, reopened, prompt) == logits_after(target, running, prompt)
    assert logits_after(target, PrefixCache(target), prompt)[0] == 0
    if edit < 4:
        assert expected > len(running.tokens) - 110, "most of it was spared"


def test_a_chat_that_was_reopened_goes_on_as_if_it_had_not_been(target: Gemma4Target, tmp_path: Path) -> None:
    running, messages = talked(target), [some_tokens(25) for _ in range(3)]
    stored(running, tmp_path / "file")
    reopened = PrefixCache(target)
    reopened.adopt(recalled(tmp_path / "file", target))
    for message in messages:
        turn(target, reopened, message, 40, before=list(running.tokens))
        turn(target, running, message, 40)
        assert reopened.tokens == running.tokens


@pytest.mark.parametrize("back", [0, 3, 48, 105])
def test_what_several_turns_have_written_is_read_as_one(target: Gemma4Target, back: int, tmp_path: Path) -> None:
    running, path = PrefixCache(target), tmp_path / "file.safetensors"
    for _ in range(4):
        turn(target, running, some_tokens(60), 45)
        stored(running, path)
    turn(target, running, some_tokens(20), before=running.tokens[: len(running.tokens) - back])
    facts = stored(running, path)
    reopened = PrefixCache(target)
    reopened.adopt(recalled(path, target))
    assert reopened.tokens == facts.tokens
    for one, other in zip(running.cache.layers, reopened.cache.layers):
        for here, there in zip(one.view(), other.view()):
            assert mx.array_equal(here, there)
    assert len(list(tmp_path.iterdir())) < 5


def test_what_is_being_written_does_not_change_while_the_engine_goes_on(target: Gemma4Target) -> None:
    prefix = talked(target)
    rows = rows_to_store(prefix.conversation)
    before = [bytes(piece) for tensor in (*rows.full, *rows.sliding) for piece in tensor.pieces]
    prefix.resume([*prefix.tokens[:-45], *some_tokens(20)])
    turn(target, prefix, some_tokens(50))
    assert before == [bytes(piece) for tensor in (*rows.full, *rows.sliding) for piece in tensor.pieces]


def test_only_the_snapshots_are_copied(target: Gemma4Target) -> None:
    prefix = talked(target)
    full_bytes = sum(
        part.nbytes for layer in prefix.cache.layers if layer.oldest_frontier == 0 for part in layer.view()
    )
    mx.clear_cache()
    before = mx.get_active_memory()
    rows = rows_to_store(prefix.conversation)
    assert mx.get_active_memory() - before < rows.size_bytes - full_bytes + 4096 * len(rows.full + rows.sliding)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_keeps_its_bits(dtype: mx.Dtype, tmp_path: Path) -> None:
    target = tiny.target("e2b")
    target._model.set_dtype(dtype)
    running = talked(target)
    stored(running, tmp_path / "file")
    reopened = PrefixCache(target)
    reopened.adopt(recalled(tmp_path / "file", target))
    prompt = [*running.tokens, *some_tokens(20)]
    assert logits_after(target, reopened, prompt) == logits_after(target, running, prompt)


def test_sliding_rows_are_stored_once(target: Gemma4Target) -> None:
    prefix = PrefixCache(target)
    turn(target, prefix, some_tokens(200), 20)
    rows = rows_to_store(prefix.conversation)
    assert len(rows.frontiers) == 2, "where the model's turn begins, and the end"
    assert len(rows.spans) == 1, "they overlap"
    (begin, end), first = rows.spans[0], rows.frontiers[0][0]
    assert (begin, end) == (first, prefix.cache.frontier)
    assert {tensor.shape[2] for tensor in rows.full} == {end}
    assert {tensor.shape[2] for tensor in rows.sliding} == {end - begin}


def test_a_short_message_is_read_again_for_another_reply(target: Gemma4Target, tmp_path: Path) -> None:
    running = talked(target)
    message, models_turn = (snapshot.frontier for snapshot in running._snapshots[-2:])
    facts = stored(running, tmp_path / "file")
    assert [at for _, at in facts.frontiers][-2:] == [message, running.cache.frontier]
    for prompt in ([*running.tokens[: models_turn + 3], 5], [*running.tokens[: message + 9], *some_tokens(30)]):
        reopened = PrefixCache(target)
        reopened.adopt(recalled(tmp_path / "file", target))
        assert logits_after(target, reopened, prompt)[0] == message
    assert len(facts.frontiers) == 2, "no other place costs little in a short chat"


def test_what_is_stored_anyway_can_be_gone_on_from(target: Gemma4Target) -> None:
    prefix = PrefixCache(target)
    turn(target, prefix, some_tokens(60), 45)
    turn(target, prefix, some_tokens(10), 10)
    rows = rows_to_store(prefix.conversation)
    begins = [snapshot.frontier for snapshot in prefix._snapshots[-2:]]
    assert [at for _, at in rows.frontiers] == [*begins, prefix.cache.frontier]
    assert len(rows.spans) == 1, "the message and its reply are shorter than a window"


def test_a_long_chat_takes_hardly_more_than_its_full_rows() -> None:
    target = tiny.target("e2b", max_position_embeddings=8192)
    prefix = PrefixCache(target)
    for _ in range(6):
        turn(target, prefix, some_tokens(800), 4)
    rows = rows_to_store(prefix.conversation)
    full_bytes = sum(tensor.size_bytes for tensor in rows.full)
    assert rows.size_bytes / full_bytes < 1.1 + 3 * 52 / len(rows.tokens)
    assert len(rows.frontiers) > 3, "earlier turns are there where they cost little"


@pytest.mark.parametrize(("one", "other"), [("e2b", "e4b"), ("31b", "12b-unified"), ("e2b", "26b-a4b")])
def test_another_layout_is_refused(one: str, other: str, tmp_path: Path) -> None:
    stored(talked(tiny.target(one)), tmp_path / "file")
    with pytest.raises(CacheFileError):
        recalled(tmp_path / "file", tiny.target(other))


def test_another_dtype_and_another_vocabulary_are_refused(tmp_path: Path) -> None:
    stored(talked(tiny.target("e2b")), tmp_path / "file")
    half = tiny.target("e2b")
    half._model.set_dtype(mx.bfloat16)
    with pytest.raises(CacheFileError, match="tensor"):
        recalled(tmp_path / "file", half)
    small = tiny.target("e2b", vocab_size=50, vocab_size_per_layer_input=50)
    with pytest.raises(CacheFileError, match="tokens"):
        recalled(tmp_path / "file", small)


@pytest.mark.parametrize(
    ("spans", "frontiers"),
    [
        ([(0, 50)], [(0, 50)]),  # not the end
        ([(100, 160), (90, 120)], [(100, 160)]),  # not in order
        ([(150, 160)], [(150, 160)]),  # less than a window
        ([(100, 160)], [(90, 160)]),  # rows that are not there
        ([(100, 160)], [(100, 160), (100, 160)]),
        ([(100, 160)], []),
        ([], [(100, 160)]),
    ],
)
def test_positions_that_cannot_be_right_are_refused(
    spans: list[tuple[int, int]], frontiers: list[tuple[int, int]], tmp_path: Path
) -> None:
    target = tiny.target("e2b")
    parts = [RowsPart("0" * 16, 160, "")]
    write_cache_file(tmp_path / "file", CacheFacts("model", [5] * 160, spans, frontiers, parts), [], 1)
    with pytest.raises(CacheFileError):
        recalled(tmp_path / "file", target)


@pytest.mark.parametrize("ends", [[], [100], [100, 100, 160], [160, 100, 160], [0, 160], [200]])
def test_parts_that_cannot_be_right_are_refused(ends: list[int], tmp_path: Path) -> None:
    parts = [RowsPart("0" * 16, end, "") for end in ends]
    facts = CacheFacts("model", [5] * 160, [(0, 160)], [(0, 160)], parts)
    with pytest.raises(CacheFileError, match="parts"):
        check_facts(facts, tiny.target("e2b"))


def test_intervals_are_joined_where_they_touch() -> None:
    assert joined([(5, 9), (0, 3), (3, 4), (8, 12), (20, 20)]) == [(0, 4), (5, 12)]
