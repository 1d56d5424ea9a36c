"""Which drafter made what: counted in the replies, shown by kind of prompt."""

from __future__ import annotations

import csv
import io

import msgspec

from app.bench import report, spreadsheet, table
from app.bench.history import decode, encode
from app.bench.results import Results
from app.bench.rows import make_rows
from tests.app.bench.support import Bench, as_results, plan


def results_of_two() -> Results:
    """A run in which lookup drafted a part of what `auto` accepted."""
    bench = Bench(plan())
    measured = bench.run()
    measured.replies = [
        msgspec.structs.replace(
            reply,
            accepted_by_drafter={"assistant": (reply.accepted or 0) - 6, "lookup": 6}
            if reply.setting == "auto"
            else {},
        )
        for reply in measured.replies
    ]
    return as_results(measured, bench.plan)


def test_every_reply_says_what_each_drafter_had_accepted() -> None:
    for reply in Bench(plan()).run().replies:
        assert reply.accepted_by_drafter == ({} if reply.setting == "off" else {"assistant": reply.accepted})


def test_shares_by_kind_of_prompt_where_several_drafted() -> None:
    results = results_of_two()
    lines = table.drafter_table(results.rows, "greedy", "short", results.method.settings)
    assert lines[0].split() == ["assistant", "lookup", "undrafted"]
    assert [line.split()[0] for line in lines[1:]] == ["chat", "all"]
    for line in lines[1:]:
        assert sum(int(cell.rstrip("%")) for cell in line.split()[1:]) in (99, 100, 101)
    text, markdown = report.as_text(results), report.as_markdown(results)
    assert "Who proposed the tokens at draft auto" in text
    assert all(line in text for line in lines)
    assert "| assistant | lookup | undrafted |" in markdown
    row = next(
        each for each in csv.DictReader(io.StringIO(spreadsheet.as_csv(results))) if each["draft"] == "auto"
    )
    assert row["token_shares"].startswith("assistant 0.")
    assert "; lookup 0." in row["token_shares"]


def test_a_single_drafter_needs_no_table() -> None:
    bench = Bench(plan())
    measured = bench.run()
    assert not table.drafter_table(make_rows(measured.replies, bench.plan.settings), "greedy", "short", ("auto",))
    assert "Who proposed" not in report.as_text(as_results(measured, bench.plan))


def test_files_of_before_can_be_read() -> None:
    content = msgspec.to_builtins(results_of_two()) | {"version": 2}
    for part in content["replies"]:
        del part["accepted_by_drafter"]
    for part in content["rows"]:
        del part["token_shares"]
    assert decode(msgspec.json.encode(content), "FILE").replies[0].accepted_by_drafter == {}
    assert decode(encode(results_of_two()), "FILE") == results_of_two()
