"""Logs stay small, cannot steer a terminal, and quote nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlx_engine.protocol.log_file import KEPT, MAX_LOG_BYTES, RECENT_S, Log, Tail, trace

CANARY = "what nobody else may read"


def test_logs_are_put_aside_when_they_are_full(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "engine.log"
    log = Log(path)
    for number in range(KEPT + 3):
        if number == KEPT:  # opened again, or in the middle of one run
            log.close()
            log = Log(path)
        log.write(b"%d" % number + b"x" * MAX_LOG_BYTES)
    log.close()
    names = sorted(each.name for each in path.parent.iterdir())
    assert names == ["engine.log", *(f"engine.log.{number}" for number in range(1, KEPT + 1))]
    firsts = [path.parent.joinpath(name).read_bytes()[:1] for name in names]
    assert firsts == [b"5", b"4", b"3", b"2"]
    assert all(each.stat().st_mode & 0o077 == 0 for each in path.parent.iterdir())


def test_a_log_cannot_steer_the_terminal_that_prints_it(tmp_path: Path) -> None:
    evil = "\x1b]52;c;eA==\x07 \x9b2J \u202egpj \U000e0041 nul\0 cr\r ü 你\tend\n"
    for size in (1, 3, 1000):
        log = Log(tmp_path / "log")
        data = evil.encode() + b"\xff\n"
        for at in range(0, len(data), size):
            log.write(data[at : at + size])
        log.close()
    (line,) = {*(tmp_path / "log").read_text().splitlines()} - {"\\xff"}
    assert line == r"\x1b]52;c;eA==\x07 \x9b2J \u202egpj \U000e0041 nul\x00 cr\r ü 你" + "\tend"


def test_what_a_log_says_of_an_error_quotes_nobody() -> None:
    try:
        try:
            Path(f"/nowhere/{CANARY}").read_bytes()
        except OSError:
            raise KeyError(CANARY)  # noqa: B904
    except KeyError as error:
        said = trace(error)
    assert CANARY not in said.replace("{CANARY}", "")
    assert "FileNotFoundError: No such file or directory\n\nwhich led to\n\nTraceback" in said
    assert said.endswith("KeyError\n")
    assert "in test_what_a_log_says_of_an_error_quotes_nobody" in said


@pytest.mark.parametrize("has_reader", [False, True])
def test_a_pipe_in_place_of_a_log_is_refused_at_once(tmp_path: Path, has_reader: bool) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK) if has_reader else None
    with pytest.raises(OSError, match="not a regular file"):
        Log(tmp_path / "log")
    if reader is not None:
        os.close(reader)


def test_a_log_may_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(os.devnull)
    log = Log(tmp_path / "log")
    log.write(b"lost")
    log.close()


def test_the_last_line_that_says_something_is_kept() -> None:
    now_s = 100.0
    tail = Tail(lambda: now_s)
    assert tail.last_line() == ""
    for part in (
        b"a warning\nthread panicked at lib.rs:1:\ncalled `unw",
        b"rap()` on \x1b\nnote: run with more\n\n",
    ):
        tail.add(part)
    assert tail.last_line() == r"called `unwrap()` on \x1b"
    now_s += 2 * RECENT_S
    tail.add(b"\n")
    assert tail.last_line() == "", "it went on after that"
