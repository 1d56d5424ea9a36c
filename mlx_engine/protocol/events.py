"""The messages between a front end and the engine: commands one way, events the other.

They consist of numbers and strings only, so that they can cross a process boundary and be written as JSON.
Knows nothing of MLX, processes or screens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from mlx_engine.protocol.micro_figures import MicroFigures

MAX_DRAFT_LENGTH = 16

FinishReason = Literal["stop", "length", "cancelled"]
SamplingRule = Literal["rejection", "coupled"]
ToolChoice = Literal["auto", "required", "none"]
FailureReason = Literal["failed", "refused", "too_long"]
"""
failed    the engine could not do it
refused   the request is malformed, or asks for what this pair cannot do
too_long  its prompt does not fit the context
"""
DraftSetting = int | Literal["auto"]
"""Tokens to draft per round, 0 (plain decoding) to 16; or the length that is measured to be fastest."""
LOOKUP = "lookup"
"""In place of a drafter's folder: prompt lookup, which needs no weights."""
FORCED = "forced"
"""As the kind of a drafter: the draft is what the form of the reply forces."""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters: str = "{}"
    """A JSON schema, as JSON text: it crosses the pipe as it was written."""


class ToolCall(msgspec.Struct, frozen=True):
    """A complete call of a tool. Nothing has been run."""

    name: str
    arguments: str = "{}"
    """A JSON object, as JSON text."""
    id: str = ""
    """What the tool's result refers to. Without ids in a request, results follow the order of the calls."""


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation, as people read it."""

    role: Literal["system", "user", "assistant", "tool"]
    """`tool`: the result of a call; it follows the assistant's message with that call."""
    text: str
    thinking: str = ""
    """Of an assistant: its thoughts, which the model sees again until the next message of a person."""
    calls: tuple[ToolCall, ...] = ()
    """Of an assistant, written after its text."""
    call_id: str = ""
    """Of a tool: which call this is the result of; empty: of the first one without a result."""
    tool_name: str = ""
    """Of a tool: its name, for a result whose call is not there."""


class SamplingOptions(msgspec.Struct, frozen=True):
    """How tokens are drawn. None: as the model folder's generation_config.json says."""

    temperature: float | None = None
    """0 is greedy."""
    top_k: int | None = None
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float | None = None
    """Keep the most likely tokens up to this total probability; 1 keeps all."""
    min_p: float = 0.0
    """Keep tokens whose probability is at least this share of the largest one; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Makes tokens that the reply already contains less likely (above 1) or more; 1 changes nothing."""
    seed: int | None = None
    """The same seed, prompt and settings give the same reply. None: a new seed for every reply."""
    rule: SamplingRule = "rejection"
    """Both are exact. `rejection` accepts more drafts; with `coupled` a seed gives the same reply whatever was
    drafted."""


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Ask for one reply."""

    id: int
    messages: tuple[Message, ...]
    """Ending in the message to answer, or in a stopped reply to continue."""
    sampling: SamplingOptions = SamplingOptions()
    draft_length: DraftSetting = "auto"
    max_tokens: int | None = None
    """The most tokens to generate; None: up to the end of the context."""
    is_thinking: bool = False
    """Let the model think before it answers."""
    measures_baseline: bool = True
    """Make a few plain rounds now and then to measure the baseline decode speed, which speedup is relative to."""
    chat_id: int | None = None
    """The stored chat, whose rows are kept on disk for the next start of the engine; None: they are not."""
    tools: tuple[Tool, ...] = ()
    """What the model may call. Without any, a call that it writes all the same is text."""
    schema: str | None = None
    """A JSON schema, as JSON text. The answer matches it, unless a limit or a person ends it; with tools it may be
    calls instead. Needs llguidance."""
    tool_choice: ToolChoice = "auto"
    """`required`: the reply consists of calls, unless a limit or a person ends it; needs llguidance. `none`: the
    model knows the tools, and calls none."""
    chosen_tool: str | None = None
    """`required`: the one tool that is called; None: any."""
    strict_tools: tuple[str, ...] = ()
    """Tools whose arguments match their schema, as far as the notation of calls can say it. Needs llguidance."""
    prompt: str | None = None
    """Text to continue as it is, without the chat template. `messages` are then empty."""


class CheckRequest(msgspec.Struct, frozen=True, tag="check"):
    """Ask whether a request can be answered, and how long its prompt is. Checked or Failed answers, at once also
    while a reply is running or a pair is being loaded."""

    request: Generate


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """End the running reply after the current round and keep what it has."""


class SetDraftLength(msgspec.Struct, frozen=True, tag="set_draft_length"):
    """Change the running reply's draft length from the next round on."""

    draft_length: DraftSetting


class Count(msgspec.Struct, frozen=True, tag="count"):
    """Ask how many tokens a text has. Counted answers, after the running reply if there is one."""

    id: int
    text: str


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Ask for half a minute of measurements of the loaded pair, which Cancel ends. Measured or Failed answers."""

    id: int


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load a pair."""

    target: str
    """The target's folder."""
    drafters: tuple[str, ...] = ()
    """Folders of assistants or smaller models, or LOOKUP; which one drafts is chosen for every round. None of
    them: plain decoding only."""
    drafter_bits: int | None = None
    """Quantize the drafters' weights to 4 or 8 bits while loading; 0: leave them as they are; None: by device and
    layout."""
    drafter_vocabulary: int | None = None
    """Assistants of 12B, 26B-A4B and 31B draft this many of the most frequent tokens, and those that the
    conversation contains; None or 0: any token."""
    is_compiled: bool | None = None
    """Compile the segments between a network's attentions; None: only on Metal."""
    is_float32: bool | None = None
    """Convert what is stored in bfloat16 or float16 to float32 while loading; None: only on a processor."""
    is_wired: bool = False
    """Wire the weights in memory, on Metal. Kernel panics have been linked to this (ml-explore/mlx#3186)."""
    prefill_chunk: int | None = None
    """Tokens of a prompt to read in one pass; None: by layout and device, and fewer where they take long."""
    conversation_bytes: int | None = None
    """The most memory for conversations, those that are not running included; None: by the machine's."""
    estimates_folder: str | None = None
    """Where the automatic draft length's estimates are kept from run to run; None: they are not kept."""
    chat_cache_folder: str | None = None
    """Where the rows of chats are kept from run to run; None: they are not."""
    chat_cache_bytes: int | None = None
    """The most that they may take on disk; None: a tenth of what is free there. 0: nothing is kept or read."""
    start_length: int | None = None
    """The first draft length of `auto` when nothing is known yet; None: depends on the GPU."""
    refusal: str | None = None
    """Why a requested drafter is missing, if the front end knows already; Ready repeats it."""
    target_name: str | None = None
    """The target's name for people; None: the name of its folder."""
    smaller: str | None = None
    """The name of the next smaller model, to suggest where memory runs out; None: the front end knows none."""
    drafter_names: dict[str, str] = {}
    """By folder, the names of drafters for people; of others it is the name of the folder."""

    @property
    def name(self) -> str:
        """The target's name for people."""
        return self.target_name or Path(self.target).name

    def drafter_name(self, drafter: str) -> str:
        """The name of one of the drafters for people."""
        return self.drafter_names.get(drafter, Path(drafter).name)


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Ask for a sign of life. Pong answers at once, also while the engine loads or computes."""


Command = Load | Generate | CheckRequest | Cancel | SetDraftLength | Count | Measure | Ping
"""Front end to engine."""


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """The engine is reading a model, or asks a server for one."""

    step: str
    """For people: `reading ...` or `warming up, 1 of 3`."""
    done_bytes: int = 0
    """Bytes read so far, of the weights of target and drafter."""
    total_bytes: int = 0
    """Their size by the headers of their files, including tensors that a chat does not need and never reads."""
    is_remote: bool = False
    """A server is asked, and nothing is read here."""


class Notice(msgspec.Struct, frozen=True, tag="notice"):
    """A message for people about something that stops nothing."""

    message: str


class ServerFacts(msgspec.Struct, frozen=True):
    """An engine that answers over HTTP, as far as a chat has to know about it."""

    name: str
    """Of its program, for people: `llama.cpp`."""
    models: tuple[str, ...]
    """The names that a request may use."""
    why_drafting_stays: str = ""
    """Why a request cannot switch drafting, as a sentence; empty if it can."""
    has_draft_lengths: bool = False
    """Whether a request can name a draft length, and not only switch drafting on and off."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The pair is loaded and warm, or a server answers. None: a server does not say."""

    target: str
    """Its name for people."""
    drafters: dict[str, str]
    """The kind of each drafter in use and its name for people, which is the same for those without a folder.
    Empty if there is none, even if one was requested; see `refusal`."""
    start_length: int | None
    """The first draft length of `auto` when nothing is known yet."""
    precision: str | None
    """Of the target's weights, for people: `float32`, `bfloat16`, `4-bit`."""
    context_tokens: int | None
    """The most tokens of prompt and reply together."""
    memory_bytes: int | None
    """What MLX has allocated now: the weights of both."""
    working_set_bytes: int | None
    """The most memory that the device recommends to use; None: unknown."""
    load_s: float
    is_compiled: bool = False
    """The segments between the attentions are compiled."""
    float32_bytes: int = 0
    """What converting the target to float32 added to its size; 0 if nothing was converted."""
    prefill_chunk: int = 256
    """Tokens of a prompt that one pass reads, at the most."""
    has_experts: bool = False
    """Whether the target is a mixture of experts."""
    drafter_bits: int | None = None
    """Bits to which drafters were quantized while loading; None: they are as stored."""
    drafter_vocabulary: int | None = None
    """How many of the most frequent tokens an assistant drafts; None: any token."""
    refusal: str | None = None
    """Why a requested drafter is not used, and what to do."""
    can_think: bool = True
    """Whether the chat template has a place for thinking."""
    server: ServerFacts | None = None
    """None: the engine is a process of this machine."""

    @property
    def can_draft(self) -> bool:
        """Whether a request can switch drafting on and off."""
        return bool(self.drafters) if self.server is None else not self.server.why_drafting_stays

    @property
    def drafter(self) -> str | None:
        """The name of the first drafter for people; None if there is none."""
        return next(iter(self.drafters.values()), None)


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The prompt is rendered and fits."""

    id: int
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that need not be read: kept in memory or on disk."""
    disk_tokens: int = 0
    """Those of them that came from disk."""

    @property
    def memory_tokens(self) -> int:
        """Prompt tokens that were kept in memory."""
        return self.cached_tokens - self.disk_tokens

    @property
    def read_tokens(self) -> int:
        """Prompt tokens that are read anew."""
        return self.prompt_tokens - self.cached_tokens


class Prefilled(msgspec.Struct, frozen=True, tag="prefilled"):
    """Progress of reading the prompt."""

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
    drafter: str = ""
    """The name of the kind of drafter that made the draft, as in Ready.drafters; empty in a plain round."""

    @property
    def is_copied(self) -> bool:
        """The draft was copied from earlier text."""
        return self.drafter == LOOKUP


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
    calls: tuple[ToolCall, ...] = ()
    """Calls that this round completes, in order."""
    refused_calls: tuple[str, ...] = ()
    """Why calls that this round ends are no calls; what the model wrote is in `text`."""


class Part(msgspec.Struct, frozen=True, tag="part"):
    """What one message of a server adds to a reply. It says nothing of rounds, and its tokens are not known."""

    id: int
    text: str
    """Text to append to the answer."""
    thinking: str
    """Text to append to the thoughts."""
    elapsed_s: float
    """From submit to its arrival."""
    calls: tuple[ToolCall, ...] = ()
    """Complete calls, in order."""


class ServerFigures(msgspec.Struct, frozen=True):
    """What a server reports about a whole reply. None: not reported."""

    source: str
    """The name of the server's program, whose figures these are."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens that it need not read."""
    generated_tokens: int | None = None
    is_about: bool = False
    """The server is known to miscount the generated tokens by a few."""
    drafted: int | None = None
    accepted: int | None = None
    """Drafts that became part of the reply; the target's own tokens are not among them."""
    rounds: int | None = None
    """Passes of the target behind the one that gave the first token."""
    tokens_per_round: float | None = None
    """Tokens that such a pass gave."""
    speedup: float | None = None
    """Over plain decoding, as measured there."""
    peak_memory_bytes: int | None = None
    remark: str = ""
    """What the reader of these figures has to know: `of full width`."""
    disk_tokens: int | None = None
    """Those of the cached tokens that came from disk."""


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The reply is complete; all its rounds have been sent."""

    id: int
    reason: FinishReason
    text: str
    """The rest of the answer; append it."""
    thinking: str
    """The rest of the thoughts."""
    target_passes: int | None
    """Passes of the target while decoding; those for the prompt are not counted. None, as the next two: made by a
    server."""
    host_syncs: int | None
    """How often the host waited for the device while decoding."""
    peak_memory_bytes: int | None
    calls: tuple[ToolCall, ...] = ()
    """A call that the end of the reply completes."""
    refused_calls: tuple[str, ...] = ()
    """As in Round; a reply that was cut off has a cut call here."""
    reported: ServerFigures | None = None
    """None: the reply came in rounds, which say all of it."""
    thinking_tokens: int = 0
    """Tokens of the reply that are thoughts."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A request failed, or the load if `id` is None. The engine keeps running."""

    id: int | None
    message: str
    reason: FailureReason = "failed"
    about: str | None = None
    """What of Generate is at fault, where it can be named: `messages`, `schema`, `tools`, or one of these,
    `tools.NAME`."""


class Checked(msgspec.Struct, frozen=True, tag="checked"):
    """The answer to Check: the request can be answered, if its prompt fits."""

    id: int
    prompt_tokens: int
    """As Started will say, unless a reply is made in between that the prompt contains. An estimate where the
    prompt is many times too long."""
    context_tokens: int
    """The most tokens of prompt and reply together."""


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """The answer to Count."""

    id: int
    tokens: int


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """The answer to Measure."""

    id: int
    figures: MicroFigures


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """The answer to Ping. The client keeps it to itself."""


class LastWords(msgspec.Struct, frozen=True, tag="last_words"):
    """Why the engine's process is about to end, if no request failed because of it. Died repeats it."""

    reason: str


class Died(msgspec.Struct, frozen=True, tag="died"):
    """The engine's process ended by itself; the next request starts a new one. Made by the client."""

    message: str


class Silent(msgspec.Struct, frozen=True, tag="silent"):
    """The engine gives no sign of life, or does not stop when asked to. It still runs. Made by the client."""

    message: str


class Answering(msgspec.Struct, frozen=True, tag="answering"):
    """The engine answers again after Silent. Made by the client."""


Event = (
    Loading
    | Notice
    | Ready
    | Started
    | Prefilled
    | Round
    | Part
    | Finished
    | Failed
    | Checked
    | Counted
    | Measured
    | Pong
    | LastWords
    | Died
    | Silent
    | Answering
)
"""Engine to front end."""
