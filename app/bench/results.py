"""The stored results of a run: every reply by itself, so that all figures can be calculated again.

Contains no text of prompts or replies, so results files can be published.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from app.bench.statistics import Estimate
from mlx_engine.protocol.micro_figures import MicroFigures

FORMAT = "slipstream-bench"
VERSION = 5
"""2 added `pair.is_wired`; 3 `micro`, `accepted_by_drafter`, and `settled_memory_bytes` and `context_tokens` of
replies; 4 `pair.server`, and figures that a server does not report; 5 `pair.drafter_vocabulary`. Files from
version 1 on can be read."""
OLDEST_VERSION = 1

Mode = Literal["greedy", "sampled"]
Context = Literal["short", "medium", "long"]
"""How much text comes before the prompt: short is the prompt alone."""
Ending = Literal["tight", "passes", "time", "interrupted", "failed", "running"]
"""Why the run ended. running: the program ended before it could record a reason."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
OFF, AUTO = "off", "auto"
AS_IS = "as-is"
"""Drafting as the server does it, where a request cannot switch it."""
EVERY_KIND = "all"


class MeasuredReply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured reply. All replies of a block answer the same prompt."""

    prompt: str
    kind: str
    context: Context
    mode: Mode
    block: Count
    place: Count
    """Position in the block, from 0, in order of time."""
    setting: str
    """`off`, a draft length, `auto`, or `as-is`."""
    tokens: Count
    """Those that took `decode_s`; of a server's reply, all but the first, which its pass over the prompt gave."""
    target_passes: Count | None
    """None, as all figures below that can be: the server does not report it."""
    drafted: Count | None
    accepted: Count | None
    accepted_by_drafter: dict[str, Count] = {}
    """By the name of its kind; empty in files of versions before 3, which did not record it."""
    decode_s: float
    """From the end of prefill to the last commit; of a server's reply, from the first text to the last."""
    peak_memory_bytes: Count | None
    settled_memory_bytes: Count | None = None
    """What MLX had allocated after the last round; the peak above it is working space."""
    context_tokens: Count | None = None
    """Tokens in the caches after the last round. Both are None in files before version 3."""
    energy_j: float | None = None
    """Used by the whole processor during the reply; None if the system does not report it."""
    is_same: bool | None = None
    """Whether the tokens equal those of the block's first reply without drafting; None: not compared."""
    differs_at: Count | None = None
    """Position of the first token that differs, from 0."""


class FirstToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time to first token with an empty prompt cache. Measured at the start of every block."""

    prompt: str
    kind: str
    context: Context
    mode: Mode
    block: Count
    prompt_tokens: Count | None
    cached_tokens: Count | None
    """None, as above: the server does not report it, so the time may be that of a prompt it had read before."""
    ttft_s: float


class ResultRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figures of one draft setting, for one kind of prompt or for all. Calculated from the replies."""

    mode: Mode
    context: Context
    kind: str
    setting: str
    replies: Count
    ms_per_token: Estimate | None
    tokens_per_s: float | None
    acceptance: float | None
    token_shares: dict[str, float] = {}
    """What share of the tokens each drafter proposed; the model's own tokens are the rest."""
    tokens_per_round: float | None
    speedup: Estimate | None
    """Compared with off in each complete block; None for off itself, and without a complete block."""
    compared: Count
    same: Count
    first_difference: str | None
    energy_j_per_token: float | None
    peak_memory_bytes: Count | None


class PairFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pair that was measured."""

    title: str
    target: str
    drafter: str | None
    drafter_bits: int | None
    drafter_vocabulary: int | None = None
    """How many of the most frequent tokens it drafts; None: any, as in all files before version 5."""
    precision: str | None
    is_compiled: bool = False
    is_wired: bool | None = None
    """Whether --wire was given; None in files of version 1, which did not record it."""
    context_tokens: Count | None
    is_pocket: bool
    server: str | None = None
    """The program that answered, where it was a server's; `title` then names its host, and nothing here the
    machine that it ran on."""


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine it was measured on."""

    chip: str
    memory_bytes: Count
    system: str
    cores: Count
    versions: dict[str, str]
    preloaded: str | None
    """Libraries in LD_PRELOAD: another BLAS changes every figure."""


class MachineState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine at one moment. None: the system does not report it, or only with privileges."""

    load: float | None
    """Load average of the last minute."""
    free_bytes: Count | None
    memory_pressure: str | None
    power: str | None
    thermal: str | None


class Method(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the run was measured."""

    settings: tuple[str, ...]
    rule: str
    max_tokens: Count
    minutes: float
    cool_down_s: float
    is_quick: bool
    is_thinking: bool
    prompts: str
    """`in the box`, `own file` or `stored chats`."""

    @property
    def compares(self) -> bool:
        """Whether there are settings to compare: some servers draft as they do, whatever a request asks."""
        return self.settings != (AS_IS,)


class Results(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of the bench."""

    format: str
    version: int
    app_version: str
    begun_at: str
    """ISO 8601, local time with offset."""
    took_s: float
    ended: Ending
    pair: PairFacts
    machine: MachineFacts
    before: MachineState
    after: MachineState | None
    method: Method
    first_tokens: tuple[FirstToken, ...]
    replies: tuple[MeasuredReply, ...]
    rows: tuple[ResultRow, ...]
    """Calculated from the replies; stored for programs that read the file."""
    notes: tuple[str, ...] = ()
    """Notes that readers of the results need."""
    micro: MicroFigures | None = None
    """Kernels, drafters and prefill chunks, measured after runs that are written as JSON; None: not measured."""
