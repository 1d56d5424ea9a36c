"""Reports made up from figures that others have published, one for each of six chips.

Nothing in them was measured by this project. Speeds without drafting are published; row costs that are not were
calculated from published speedups, as the comments say. A drafter's token takes 0.8 GB over the chip's bandwidth
and 1.5 ms more: mlxcel's profile has 10.3 ms on M1 Ultra and 10.7 ms on M5 Max, taken as rounds of four drafts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.bench.results import MachineFacts
from app.report.contents import Report, ReportedPair
from mlx_engine.protocol.micro_figures import MicroFigures
from mlx_engine.protocol.prefill_chunk import ChunkRange, chunk_range
from mlx_engine.speculation.steering import start_length

DENSE_CHUNKS = {256: 0.952, 512: 1.0, 1024: 0.998, 2048: 0.982}
"""Speed of prefill against the best (mlx-lm #1781, a dense 27B on M5 Max)."""
EXPERT_CHUNKS = {256: 0.65, 512: 0.82, 1024: 0.912, 2048: 1.0}
"""2,048 against 1,024 from oMLX #3381, against 512 from vllm-mlx #174; 256 is assumed, by the rows per expert."""
ASSISTANT_BYTES, STEP_BESIDE_READING_S = 0.8e9, 0.0015


@dataclass(frozen=True)
class Published:
    """What is known about one chip with one model."""

    chip: str
    architecture: str
    """MLX's name for it."""
    bandwidth: float
    """Bytes per second, by Apple."""
    model: str
    plain: float
    """Tokens per second without drafting."""
    row_costs: Mapping[int, float]
    """Cost of a pass by its rows, against one row."""
    prefill: float
    """Tokens per second."""
    has_experts: bool = False

    @property
    def start_length(self) -> int:
        """What this version begins with there; these models have two queries for each K/V head."""
        return start_length(self.architecture, "0.32.4", 2, self.has_experts)

    @property
    def chunks(self) -> ChunkRange:
        return chunk_range(None, is_moe=self.has_experts, has_gpu=True)

    def report(self) -> Report:
        chunks = EXPERT_CHUNKS if self.has_experts else DENSE_CHUNKS
        return Report(
            machine=MachineFacts(
                chip=self.chip, memory_bytes=64 << 30, system="Darwin arm64", cores=16, versions={}, preloaded=None
            ),
            pair=ReportedPair(
                title=self.model,
                drafter="assistant",
                has_experts=self.has_experts,
                start_length=self.start_length,
                prefill_chunk=self.chunks.most_tokens,
            ),
            figures=MicroFigures(
                verify_s={rows: cost / self.plain for rows, cost in self.row_costs.items()},
                drafter_step_s={"assistant": ASSISTANT_BYTES / self.bandwidth + STEP_BESIDE_READING_S},
                prefill_s={chunk: chunk / (self.prefill * share) for chunk, share in chunks.items()},
            ),
        )


def linear(step: float, rows: int = 9) -> dict[int, float]:
    """Every row more costs the same."""
    return {row: 1 + step * (row - 1) for row in range(1, rows + 1)}


PUBLISHED = (
    # 18.1 tok/s plain and 13.7 to 17.4 with 4 drafts (mlxcel #216): without wide kernels each row reads the
    # weights again. Prefill: 373 tok/s of a 12B (mlxcel), by size.
    Published("M1 Ultra", "applegpu_g13d", 800e9, "31B 4-bit", 18.1, linear(0.68), 144),
    # 1.21 times with 3 drafts at 90% (Rapid #3593). Plain as on M3 Max, which has the same bandwidth. Nobody has
    # published the prefill of an M2 Max or M3 Max: any value below 2,200 leads to the same chunk.
    Published("M2 Max", "applegpu_g14s", 400e9, "26B-A4B 4-bit", 42, linear(0.47), 700, has_experts=True),
    # 42 plain, 47 with 2 drafts, 29 to 36 with 4 (reddit 1u13do9), at the usual acceptance.
    Published(
        "M3 Max", "applegpu_g15s", 400e9, "26B-A4B", 42,
        {1: 1, 2: 1.45, 3: 1.89, 4: 2.8, 5: 3.75}, 900, has_experts=True
    ),
    # A round with K drafts costs 0.83 + 0.17 K plain steps, and 5 rows are best (mlxcel #1217); from 6 on, the
    # weights are read twice. 310 tok/s prefill.
    Published(
        "M3 Ultra", "applegpu_g15d", 819e9, "31B 4-bit", 29.9,
        {1: 1, 2: 0.93, 3: 1.02, 4: 1.12, 5: 1.21, 6: 1.9, 7: 2.0, 8: 2.1, 9: 2.2}, 310,
    ),
    # mlx #3839: quantized product by rows; 18.4 tok/s and 293 tok/s prefill (mlx-dspark).
    Published(
        "M4 Pro", "applegpu_g16s", 273e9, "12B 8-bit", 18.4,
        {1: 1, 2: 1.03, 3: 1.22, 4: 1.47, 5: 1.75, 6: 2.07, 8: 2.69}, 293
    ),
    # Rounds of 31.2, 35.5, 57.0 and 61.1 ms with 3, 4, 8 and 16 drafts (mlxcel), less 1.8 ms for each draft of a
    # drafter at 4 bits; 59 tok/s plain (ax-engine), about 2,000 prefill. 17 rows cost less than 9.
    Published(
        "M5 Max", "applegpu_g17s", 614e9, "12B 4-bit", 59,
        {1: 1, 2: 1.17, 3: 1.34, 4: 1.52, 5: 1.67, 9: 2.51, 17: 1.9}, 2000
    ),
)  # fmt: skip


def table(rows: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Lines of Markdown, by chip: model, then for each default what is chosen, in brackets what is built in."""
    lines = ["| chip | model | first draft length | prefill chunk | drafter |", "|---|---|---|---|---|"]
    return lines + [f"| {chip} | {' | '.join(cells)} |" for chip, cells in rows.items()]
