"""What was measured, as it is kept: every reply by itself, so that all figures can be made again from it.

Holds no text of prompts or replies: a results file can be published.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from app.bench.statistics import Estimate

FORMAT = "slipstream-bench"
VERSION = 2
"""2 added `pair.is_wired`. Files from version 1 on can be read."""
OLDEST_VERSION = 1

Mode = Literal["greedy", "sampled"]
Context = Literal["short", "medium", "long"]
"""short: the prompt alone; medium, long: a long text before it."""
Ending = Literal["tight", "passes", "time", "interrupted", "failed", "running"]
"""Why there are no more blocks. running: the program ended before it could say."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
OFF, AUTO = "off", "auto"
EVERY_KIND = "all"


class MeasuredReply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured reply. All replies of a block answer the same prompt."""

    prompt: str
    kind: str
    context: Context
    mode: Mode
    block: Count
    place: Count
    """In the block, from 0: the order in time."""
    setting: str
    """`off`, a draft length, or `auto`."""
    tokens: Count
    target_passes: Count
    drafted: Count
    accepted: Count
    decode_s: float
    """From the end of prefill to the last commit."""
    peak_memory_bytes: Count
    energy_j: float | None = None
    """Of the whole processor while the reply was made; None where the system does not tell."""
    is_same: bool | None = None
    """The same tokens as the block's first reply without drafting; None: not compared."""
    differs_at: Count | None = None
    """The first token, from 0, that is another one."""


class FirstToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the first token of a prompt took that nothing was kept of. Begins every block."""

    prompt: str
    kind: str
    context: Context
    mode: Mode
    block: Count
    prompt_tokens: Count
    cached_tokens: Count
    ttft_s: float


class ResultRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figures of one draft setting for one kind of prompt, or for all kinds. Made from the replies."""

    mode: Mode
    context: Context
    kind: str
    setting: str
    replies: Count
    ms_per_token: Estimate | None
    tokens_per_s: float | None
    acceptance: float | None
    tokens_per_round: float | None
    speedup: Estimate | None
    """Against off, by the ratio in each complete block; None for off itself and without a complete block."""
    compared: Count
    same: Count
    first_difference: str | None
    energy_j_per_token: float | None
    peak_memory_bytes: Count | None


class PairFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured."""

    title: str
    target: str
    drafter: str | None
    drafter_bits: int | None
    precision: str
    is_compiled: bool = False
    is_wired: bool | None = None
    """Whether --wire was given; None in files of version 1, which did not record it."""
    context_tokens: Count
    is_pocket: bool


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """On what."""

    chip: str
    memory_bytes: Count
    system: str
    cores: Count
    versions: dict[str, str]
    preloaded: str | None
    """Names of the libraries in LD_PRELOAD: another BLAS changes every figure."""


class MachineState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the machine was at one moment. None: the system does not say, or not without privileges."""

    load: float | None
    """Processes that ran or waited, on average over the last minute."""
    free_bytes: Count | None
    memory_pressure: str | None
    power: str | None
    thermal: str | None


class Method(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it was measured."""

    settings: tuple[str, ...]
    rule: str
    max_tokens: Count
    minutes: float
    cool_down_s: float
    is_quick: bool
    is_thinking: bool
    prompts: str
    """`in the box`, `own file` or `stored chats`."""


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
    """Made from the replies, for programs that read the file."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the run."""
