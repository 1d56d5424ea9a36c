"""Defaults that are chosen from a report about a device."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from app.report.choosing import choose_defaults
from app.report.contents import Defaults, Report, ReportedPair
from mlx_engine.loading.drafter_bits import chosen_bits
from mlx_engine.protocol.micro_figures import MicroFigures
from tests.app.report.public_reports import PUBLISHED, linear, table
from tests.paths import ROOT


def report(has_experts: bool = False, drafter_bits: int | None = None, **figures: object) -> Report:
    pair = ReportedPair(
        title="x", drafter="assistant", has_experts=has_experts, start_length=4, prefill_chunk=512,
        drafter_bits=drafter_bits,
    )  # fmt: skip
    made = PUBLISHED[0].report()
    return msgspec.structs.replace(made, pair=pair, figures=MicroFigures(**figures))  # type: ignore[arg-type]


def drafting(costs: dict[int, float], step_s: float = 0.02, drafter_bits: int | None = None) -> Defaults:
    return choose_defaults(report(verify_s=costs, drafter_step_s={"assistant": step_s}, drafter_bits=drafter_bits))


def test_the_table_in_the_readme_is_what_is_chosen_beside_what_is_built_in(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma4_assistant"}')
    rows = {}
    for published in PUBLISHED:
        chosen = choose_defaults(published.report())
        built_in_bits = chosen_bits(None, str(tmp_path), published.architecture)
        rows[published.chip] = (
            published.model,
            both(str(chosen.start_length), str(published.start_length)),
            both(f"{chosen.prefill_chunk:,}", f"{published.chunks.most_tokens:,}"),
            both(bits_words(chosen.drafter_bits), bits_words(built_in_bits)),
        )
    written = (ROOT / "mlx_engine" / "README.md").read_text()
    assert "\n".join(table(rows)) in written


def both(chosen: str, built_in: str) -> str:
    return chosen if chosen == built_in else f"{chosen} ({built_in})"


def bits_words(bits: int | None) -> str:
    return f"{bits}-bit" if bits else "as stored"


def test_rows_that_cost_nothing_are_used_and_those_behind_a_step_are_not() -> None:
    assert drafting({rows: 1.0 if rows < 6 else 2.0 for rows in range(1, 10)}).start_length == 4
    assert drafting({rows: 1.0 if rows < 9 else 2.0 for rows in range(1, 18)}).start_length == 7


def test_a_length_may_be_best_behind_a_worse_one() -> None:
    costs = {1: 1.0, 4: 1.5, 5: 1.9, 8: 3.0, 16: 1.5}
    assert drafting(costs).start_length == 15


def test_where_nothing_pays_drafting_begins_with_one() -> None:
    assert drafting(linear(1.0)).start_length == 1


@pytest.mark.parametrize(("step_s", "bits"), [(0.01, None), (0.2, 8)])
def test_eight_bits_where_the_drafter_is_much_of_a_round(step_s: float, bits: int | None) -> None:
    assert drafting(dict.fromkeys(range(1, 6), 1.0), step_s).drafter_bits == bits


def test_bits_that_a_person_chose_stay() -> None:
    assert drafting(dict.fromkeys(range(1, 6), 1.0), 0.2, drafter_bits=4).drafter_bits == 4


def test_the_shortest_chunk_that_is_nearly_as_fast_as_the_best() -> None:
    times_s = {256: 0.13, 512: 0.205, 1024: 0.4, 2048: 0.79}
    assert choose_defaults(report(prefill_s=times_s)).prefill_chunk == 512


def test_a_chunk_within_which_a_stop_would_come_late_is_not_chosen() -> None:
    slow = {256: 0.9, 512: 1.2, 1024: 2.0}
    assert choose_defaults(report(prefill_s=slow)).prefill_chunk == 256
    assert choose_defaults(report(prefill_s=slow, has_experts=True)).prefill_chunk == 512, (
        "as chunks shrink no more"
    )


def test_nothing_is_chosen_from_what_was_not_measured() -> None:
    assert choose_defaults(report()) == Defaults()
    assert choose_defaults(report(verify_s={1: 1.0, 2: 1.1})) == Defaults()
    empty = msgspec.structs.replace(PUBLISHED[0].report(), pair=None)
    assert choose_defaults(empty) == Defaults()
    assert choose_defaults(msgspec.structs.replace(PUBLISHED[0].report(), figures=None)) == Defaults()
