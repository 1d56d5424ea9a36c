"""The rows as CSV for a spreadsheet: one line for each kind and setting."""

from __future__ import annotations

import csv
import io

from app.bench.results import Results
from app.bench.statistics import Estimate

COLUMNS = (
    "mode", "context", "kind", "draft", "replies", "ms_per_token", "ms_per_token_low", "ms_per_token_high",
    "tokens_per_s", "acceptance", "tokens_per_round", "speedup", "speedup_low", "speedup_high", "speedup_blocks",
    "compared", "identical", "first_difference", "energy_j_per_token", "peak_memory_bytes", "token_shares",
)  # fmt: skip


def as_csv(results: Results) -> str:
    """CSV with a header line; unknown values are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in results.rows:
        latency, speedup = _three(row.ms_per_token), _three(row.speedup)
        blocks = row.speedup.count if row.speedup else 0
        writer.writerow(
            [
                row.mode, row.context, row.kind, row.setting, row.replies, *latency, row.tokens_per_s,
                row.acceptance, row.tokens_per_round, *speedup, blocks, row.compared, row.same,
                row.first_difference, row.energy_j_per_token, row.peak_memory_bytes,
                "; ".join(f"{name} {share:.4f}" for name, share in row.token_shares.items()),
            ]
        )  # fmt: skip
    return text.getvalue()


def _three(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (estimate.median, estimate.low, estimate.high) if estimate else (None, None, None)
