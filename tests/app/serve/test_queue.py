"""Whose turn it is, and where a stop string ends a text."""

from __future__ import annotations

import asyncio
import random

import pytest

from app.serve.errors import BusyError
from app.serve.job import SHORT_TOKENS, Job
from app.serve.queue import MOST_OVERTAKEN, MOST_WAITING, JobQueue
from app.serve.request import AnswerRequest
from app.serve.stop_strings import StopStrings
from mlx_engine.protocol.events import Checked, Generate, Message

HI = (Message("user", "Hi"),)


def job(id: str, prompt_tokens: int) -> Job:
    return Job(id, AnswerRequest(HI), Generate(1, HI), Checked(1, prompt_tokens, 32_768), "client")


def long(id: str) -> Job:
    return job(id, SHORT_TOKENS + 1)


def short(id: str) -> Job:
    return job(id, SHORT_TOKENS)


async def order(queue: JobQueue) -> str:
    return "".join([(await queue.take()).id for _ in range(len(queue))])


async def test_first_come_first_served() -> None:
    queue = JobQueue()
    for id in "abc":
        queue.add(long(id))
    assert await order(queue) == "abc"
    for id in "abc":
        queue.add(short(id))
    assert await order(queue) == "abc"


async def test_short_ones_go_before_long_ones_but_not_for_ever() -> None:
    queue = JobQueue()
    queue.add(long("a"))
    queue.add(long("b"))
    for number in range(MOST_OVERTAKEN + 2):
        queue.add(short(str(number)))
    assert await order(queue) == "0123ab45"


async def test_one_that_leaves_is_not_taken() -> None:
    queue = JobQueue()
    first, second = long("a"), long("b")
    queue.add(first)
    queue.add(second)
    assert queue.remove(first)
    assert not queue.remove(first)
    assert await order(queue) == "b"
    assert not queue.remove(second)


async def test_the_next_one_is_waited_for() -> None:
    queue = JobQueue()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add(long("a"))
    assert (await taking).id == "a"


async def test_a_full_queue_asks_to_come_again() -> None:
    queue = JobQueue()
    for number in range(MOST_WAITING):
        queue.add(long(str(number)))
    with pytest.raises(BusyError) as refused:
        queue.add(short("x"))
    assert refused.value.retry_after_s


def test_any_pieces_of_a_text_end_before_the_same_stop_string() -> None:
    chance = random.Random(7)
    for _ in range(300):
        text = "".join(chance.choice("ab\n") for _ in range(chance.randrange(12)))
        stops = ["".join(chance.choice("ab\n") for _ in range(chance.randrange(1, 4))) for _ in range(2)]
        reader, shown, at = StopStrings(stops), "", 0
        while at < len(text):
            end = at + chance.randrange(1, 4)
            shown += reader.add(text[at:end])
            assert not any(stop in shown for stop in stops)
            at = end
        shown += reader.finish()
        ends = [text.find(stop) for stop in stops if stop in text]
        assert shown == (text[: min(ends)] if ends else text)
        assert (reader.found is not None) == bool(ends)


def test_without_stop_strings_nothing_is_held_back() -> None:
    reader = StopStrings(("",))
    assert reader.add("abc") == "abc"
    assert reader.finish() == ""
