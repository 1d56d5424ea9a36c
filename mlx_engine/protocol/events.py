"""What crosses between a front end and the engine: requests one way, events the other.

Only numbers and strings, so that both sides of a process boundary, a log and `--json` can hold them.
Knows nothing of MLX, of processes or of the screen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

MAX_DRAFT_LENGTH = 16

FinishReason = Literal["stop", "length", "cancelled"]
SamplingRule = Literal["rejection", "coupled"]
DraftSetting = int | Literal["auto"]
"""Tokens drafted per round, 0 to 16, where 0 is plain decoding; or as many as pay, by what is measured."""
LOOKUP = "lookup"
"""In place of a drafter's folder: prompt lookup, which needs no weights."""


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation, as a person reads it."""

    role: Literal["system", "user", "assistant"]
    text: str


class SamplingOptions(msgspec.Struct, frozen=True):
    """How tokens are drawn. None means: as the model folder's generation_config says."""

    temperature: float | None = None
    """0 is greedy."""
    top_k: int | None = None
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float | None = None
    """Keep the smallest set of likeliest tokens that holds this probability; 1 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this share as likely as the likeliest; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Makes tokens that the reply already holds less likely (above 1) or likelier; 1 changes nothing."""
    seed: int | None = None
    """The same seed, prompt and settings give the same reply. None: a new one every time."""
    rule: SamplingRule = "rejection"
    """Both are exact. `rejection` accepts most drafts; with `coupled` a seed gives the same words however
    they were drafted."""


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Ask for one reply."""

    id: int
    messages: tuple[Message, ...]
    """Ending in what is to be answered, or in a reply that was stopped and is to go on."""
    sampling: SamplingOptions = SamplingOptions()
    draft_length: DraftSetting = "auto"
    max_tokens: int | None = None
    """At most this many tokens; None: up to the end of the context."""
    is_thinking: bool = False
    """Let the model think before it answers."""
    measures_baseline: bool = True
    """Make a few plain rounds now and then, so that speedup has something measured to divide by."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """End the running reply at the next round, keeping what it has."""


class SetDraftLength(msgspec.Struct, frozen=True, tag="set_draft_length"):
    """Draft this many tokens from the next round on."""

    draft_length: DraftSetting


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Ask how many tokens a text has; Counted answers, after the running reply if there is one."""

    id: int
    text: str


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load a pair."""

    target: str
    """Its folder."""
    drafter: str | None
    """The folder of an assistant or of a smaller model, or LOOKUP. None: plain decoding only."""
    drafter_bits: int | None = None
    """Quantize the drafter's weights to 4 or 8 bits while loading; None: as they are."""
    is_compiled: bool | None = None
    """Compile what lies between a network's attentions; None: on Metal."""
    is_wired: bool = False
    """Keep the weights wired in memory, on Metal. Kernel panics have been tied to it (ml-explore/mlx#3186)."""
    estimates_folder: str | None = None
    """Where what was learned about draft lengths is kept from run to run; None: nowhere."""
    start_length: int | None = None
    """The length that `auto` begins with when it knows nothing; None: by the kind of GPU."""
    refusal: str | None = None
    """Why there is no drafter although one was asked for, if that is known already; Ready says it."""
    target_name: str | None = None
    """What people call the target; None: as its folder."""
    drafter_name: str | None = None
    """The same for the drafter."""

    @property
    def names(self) -> tuple[str, str | None]:
        """What target and drafter are called."""
        drafter = self.drafter_name or (Path(self.drafter).name if self.drafter else None)
        return self.target_name or Path(self.target).name, drafter


Command = Load | Generate | Cancel | SetDraftLength | Count
"""Front end to engine."""


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """The engine is reading a model."""

    what: str
    done_bytes: int = 0
    """Of the weights of target and drafter, so far."""
    total_bytes: int = 0
    """As the headers of their files say; tensors that a chat never needs are counted, but not read."""


class Notice(msgspec.Struct, frozen=True, tag="notice"):
    """Something to be told that stops nothing."""

    message: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The pair is loaded and warm."""

    target: str
    """What it is called."""
    drafter: str | None
    """What it is called, or LOOKUP. None also where one was asked for; see `refusal`."""
    start_length: int
    """The length that `auto` begins with when it knows nothing."""
    precision: str
    """Of the target's weights, in words: `float32`, `bfloat16`, `4-bit`."""
    context_tokens: int
    """Tokens that fit, prompt and reply together."""
    memory_bytes: int
    """What MLX holds now: the weights of both."""
    working_set_bytes: int | None
    """What the device recommends to use at most; None: it does not say."""
    load_s: float
    is_compiled: bool = False
    """What lies between the attentions is compiled."""
    refusal: str | None = None
    """Why the drafter that was asked for is not used, and what to do."""


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The prompt is rendered and fits."""

    id: int
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens whose keys and values were kept from the turn before."""


class Prefilled(msgspec.Struct, frozen=True, tag="prefilled"):
    """So many prompt tokens have been read."""

    id: int
    done_tokens: int
    total_tokens: int


class RoundFacts(msgspec.Struct, frozen=True):
    """What one round of decoding did. Decoding itself knows neither text nor time; `Round` adds both."""

    token_ids: tuple[int, ...]
    """Committed tokens in order: `accepted` drafts, then the target's own. A stop token, if any, is the last."""
    drafted: int
    """Tokens that the drafter proposed; 0 in a plain round."""
    accepted: int
    """Drafts that became part of the reply; those behind a stop token do not count."""
    is_pipelined: bool
    """A plain round that started before the result of the round before it was read. Only such rounds show the
    baseline decode speed."""
    context_tokens: int
    """Tokens whose keys and values are in the cache after this round."""


class Round(RoundFacts, frozen=True, tag="round", kw_only=True):
    """One round of a reply, with the text it adds and the time it took."""

    id: int
    text: str
    """Text to append to the answer; it may lag behind the tokens where a character spans several."""
    thinking: str
    """Text to append to the thoughts."""
    round_s: float
    """From the previous commit to this one (for the first round: from the end of prefill)."""
    memory_bytes: int
    """What MLX has allocated now."""
    elapsed_s: float
    """From submit to this commit."""
    drafted_characters: int = 0
    """Length of the drafted part at the start of `text`; a character belongs to the token that completes it."""


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The reply is complete; all its rounds have been sent."""

    id: int
    reason: FinishReason
    text: str
    """What was still held back of the answer; append it."""
    thinking: str
    """What was still held back of the thoughts."""
    target_passes: int
    """Passes of the target made to decode this reply, the prompt not counted."""
    host_syncs: int
    """Times the host waited for the device to decode this reply."""
    peak_memory_bytes: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A request or a load failed; the engine goes on. `id` None: the load."""

    id: int | None
    message: str


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """So many tokens a text has."""

    id: int
    tokens: int


class Died(msgspec.Struct, frozen=True, tag="died"):
    """The engine's process ended unasked; the next request starts a new one."""

    message: str


Event = Loading | Notice | Ready | Started | Prefilled | Round | Finished | Failed | Died | Counted
"""Engine to front end."""
