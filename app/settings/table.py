"""The table of all settings: name, kind, default and help of each.

The settings file, the environment, the flags, the settings panel of a chat, `slipstream settings` and its example
file are all made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_type_hints

from app.settings.kinds import AutoOr, Choice, FreeText, Kind, Number, one_of, switch
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, DraftSetting, SamplingRule
from mlx_engine.protocol.prefill_chunk import FEWEST_TOKENS, MOST_TOKENS

SendKey = Literal["enter", "ctrl+enter", "alt+enter", "ctrl+s"]
Notify = Literal["off", "bell", "notification"]

THEMES = (
    "textual-dark", "textual-light", "nord", "gruvbox", "catppuccin-mocha", "catppuccin-latte",
    "catppuccin-frappe", "catppuccin-macchiato", "dracula", "tokyo-night", "monokai", "flexoki", "solarized-light",
    "solarized-dark", "rose-pine", "rose-pine-moon", "rose-pine-dawn", "atom-one-dark", "atom-one-light",
    "ansi-dark", "ansi-light",
)  # fmt: skip
"""Textual's themes, repeated here so that the shell knows them without loading Textual."""

DRAFT = Choice(
    {"auto": "auto", "off": 0} | {str(length): length for length in range(1, MAX_DRAFT_LENGTH + 1)},
    f"auto, off or 1 to {MAX_DRAFT_LENGTH}",
    f"auto|off|1..{MAX_DRAFT_LENGTH}",
)
TEMPERATURE = Number(0, 100, placeholder="T")
DRAFT_START = Number(1, MAX_DRAFT_LENGTH, is_whole=True)
FROM_ZERO = "from 0"
TOP_K = Number(0, 1 << 30, is_whole=True, placeholder="K", range=FROM_ZERO)
SEED = Number(0, (1 << 32) - 1, is_whole=True)
MAX_TOKENS = Number(1, 1 << 30, is_whole=True, range="from 1")
DRAFTER = "the name, folder or hub id of an assistant, another drafter or a smaller model, auto, lookup or none"
VOCABULARIES = {f"{size}k": size << 10 for size in (16, 32, 64, 128)} | {"all": 0}
SET_BY_MODEL = "set by the model"
NO_SERVER = "none"


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """What the help says about one setting, and where it can be set."""

    kind: Kind | None
    """None: a mapping, which can only be set in the file."""
    help: str
    unset: str = ""
    """What the default means where the default is not to set a value."""
    label: str = ""
    """Its name for people; empty: the one in the file."""
    about: str = ""
    """What it does, in a short line for people."""
    is_per_chat: bool = False
    """Whether each chat can have its own value."""
    has_flag: bool = True
    alias: str = ""
    """Another name accepted in the file and the environment."""
    example: str = ""
    """A value for the example file, where the default is not to set one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values of all settings. None: not set."""

    model: Annotated[
        str | None,
        SettingInfo(
            FreeText("a name from `slipstream models list`, a folder or a hub id", "NAME|FOLDER|HUB-ID"),
            "the model to chat with; `slipstream models list` shows the names",
            unset="the one you last chose in the chat, else the pocket model",
            example="e4b",
        ),
    ] = None
    server: Annotated[
        str | None,
        SettingInfo(
            FreeText("the address of a server, such as http://studio.local:8765, or none", "URL|none"),
            "chat with the model of a server instead of one on this machine; --model then names one of its "
            "models, and `slipstream servers` finds servers; none: load a model even if a server runs here",
            unset="a `slipstream serve` that runs here, else a model of this machine",
            example="http://studio.local:8765",
        ),
    ] = None
    drafter: Annotated[
        str,
        SettingInfo(
            FreeText(DRAFTER, "NAME|FOLDER|HUB-ID|assistant|lookup|auto|none"),
            "the drafter: a name from `slipstream models list`, an assistant or a smaller model of the same "
            "family; lookup: copies from the text itself, without weights; several with commas: the best for each "
            "round; auto: the model's assistant if it is here, and lookup; none: no drafting",
        ),
    ] = "auto"
    drafter_bits: Annotated[
        int | None,
        SettingInfo(
            Choice({"4": 4, "8": 8, "stored": 0}, "4, 8 or stored", "4|8|stored"),
            "quantize the drafter's weights while loading; stored: leave them as they are",
            unset="8 on M5 and later for drafters of 12B, 26B-A4B and 31B, else as stored",
            example="4",
        ),
    ] = None
    drafter_vocabulary: Annotated[
        int | None,
        SettingInfo(
            Choice(VOCABULARIES, "16k, 32k, 64k, 128k or all", "16k|32k|64k|128k|all"),
            "let the assistants of 12B, 26B-A4B and 31B draft only this many of the most frequent tokens, and "
            "those that the conversation contains: drafts take less time and miss more of the rare words; replies "
            "stay the model's own",
            unset="all",
            example="64k",
        ),
    ] = None
    compile: Annotated[
        bool | None,
        SettingInfo(
            switch(),
            "compile the layers around attention in both models; on a CPU this takes half a minute the first time",
            unset="on with Metal, off without",
            example="off",
        ),
    ] = None
    float32: Annotated[
        bool | None,
        SettingInfo(
            switch(),
            "convert what a model stores in bfloat16 or float16 to float32 while loading: several times faster on "
            "a CPU, for more memory",
            unset="on without a GPU, off with one",
            example="off",
        ),
    ] = None
    wire: Annotated[
        bool,
        SettingInfo(
            switch(),
            "wire the weights into memory, on Metal: a model that almost fills memory stays fast, but this has "
            "been linked to kernel panics",
        ),
    ] = False
    oversized: Annotated[
        bool,
        SettingInfo(switch(), "load a model that is too large for memory; this can crash the machine"),
    ] = False
    prefill_chunk: Annotated[
        int | Literal["auto"],
        SettingInfo(
            AutoOr(Number(FEWEST_TOKENS, MOST_TOKENS, is_whole=True)),
            "tokens of a prompt to read at once; auto: by model and device, and fewer where that takes more than "
            "half a second",
        ),
    ] = "auto"
    chat_cache: Annotated[
        float | Literal["auto"],
        SettingInfo(
            AutoOr(Number(0, 1_000_000, placeholder="GB")),
            "GB of disk for what was read of your chats, so that a reopened one answers at once; auto: a tenth of "
            "what is free; 0: nothing is kept",
        ),
    ] = "auto"
    chat_memory: Annotated[
        float | Literal["auto"],
        SettingInfo(
            AutoOr(Number(0, 1024)),
            "GB of memory for chats that were read, so that going back to one is quick; auto: a quarter of what "
            "the model leaves",
        ),
    ] = "auto"
    draft: Annotated[
        DraftSetting,
        SettingInfo(
            DRAFT,
            "tokens to draft per round; auto picks the length that is fastest right now, and stops drafting when "
            "it does not help",
            label="Draft length",
            about="Tokens guessed ahead per round; auto picks what is fastest now.",
            is_per_chat=True,
        ),
    ] = "auto"
    draft_start: Annotated[
        int | None,
        SettingInfo(
            DRAFT_START,
            "the draft length that auto starts with, before it has measured anything",
            unset="depends on the GPU",
            example="4",
        ),
    ] = None
    temp: Annotated[
        float | None,
        SettingInfo(
            TEMPERATURE,
            "sampling temperature; 0 is greedy",
            unset=SET_BY_MODEL,
            label="Temperature",
            about="Higher is more varied; 0 always picks the likeliest token.",
            is_per_chat=True,
            alias="temperature",
            example="0.7",
        ),
    ] = None
    top_k: Annotated[
        int | None,
        SettingInfo(
            TOP_K,
            "sample only from the K most likely tokens; 0 keeps all",
            unset=SET_BY_MODEL,
            label="Top K",
            about="Choose only among the K likeliest tokens; 0: among all.",
            is_per_chat=True,
            example="64",
        ),
    ] = None
    top_p: Annotated[
        float | None,
        SettingInfo(
            Number(1e-6, 1, placeholder="P", range="above 0, up to 1"),
            "sample only from the most likely tokens whose probabilities add up to P; 1 keeps all",
            unset=SET_BY_MODEL,
            label="Top P",
            about="Choose only among the likeliest that add up to P; 1: among all.",
            is_per_chat=True,
            example="0.95",
        ),
    ] = None
    min_p: Annotated[
        float,
        SettingInfo(
            Number(0, 1, placeholder="P"),
            "sample only from tokens at least P times as likely as the most likely one; 0 keeps all",
            label="Min P",
            about="Leave out tokens less than P times as likely as the likeliest.",
            is_per_chat=True,
        ),
    ] = 0.0
    repetition_penalty: Annotated[
        float,
        SettingInfo(
            Number(0.01, 100, placeholder="R"),
            "above 1, words already in the reply become less likely; 1 changes nothing",
            label="Repetition penalty",
            about="Above 1, words already in the reply become less likely.",
            is_per_chat=True,
        ),
    ] = 1.0
    sampling: Annotated[
        SamplingRule,
        SettingInfo(
            one_of("rejection", "coupled"),
            "how drafts are verified; both rules are exact; with coupled, one seed gives the same text with and "
            "without drafting",
            label="Acceptance rule",
            about="Both are exact; with coupled, a seed gives one text, drafting or not.",
            is_per_chat=True,
            alias="rule",
        ),
    ] = "rejection"
    seed: Annotated[
        int | None,
        SettingInfo(
            SEED,
            "makes sampling repeatable: the same seed gives the same reply",
            unset="a new one every time",
            label="Seed",
            about="The same seed gives the same reply; empty: always another one.",
            is_per_chat=True,
            example="7",
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        SettingInfo(
            MAX_TOKENS,
            "end the reply after N tokens",
            unset="until the context is full",
            label="Longest reply",
            about="Ends a reply after so many tokens; empty: only a full context does.",
            is_per_chat=True,
            example="2000",
        ),
    ] = None
    think: Annotated[
        bool,
        SettingInfo(
            switch(),
            "let the model think before it replies",
            label="Thinking",
            about="Lets the model think before it replies: slower, often better.",
            is_per_chat=True,
        ),
    ] = False
    system: Annotated[
        str | None,
        SettingInfo(
            FreeText(may_be_empty=True),
            "the system prompt: instructions for the whole chat",
            unset="none",
            label="System prompt",
            about="Instructions that the model gets with every message of the chat.",
            is_per_chat=True,
            example="Answer in short sentences.",
        ),
    ] = None
    plain: Annotated[
        bool,
        SettingInfo(
            switch(),
            "chat line by line, without colours, for screen readers; `--plain` does this once",
            has_flag=False,
        ),
    ] = False
    theme: Annotated[
        str | None,
        SettingInfo(
            one_of(*THEMES),
            "the colours of the chat",
            unset="the one you last chose in the chat",
            has_flag=False,
            example="nord",
        ),
    ] = None
    send_key: Annotated[
        SendKey,
        SettingInfo(
            one_of(*get_args(SendKey)),
            "the key that sends a message; with a key other than enter, enter starts a new line (safe for input "
            "methods that end a word with enter), and ctrl+s, which works in every terminal, sends as well",
            has_flag=False,
        ),
    ] = "enter"
    notify: Annotated[
        Notify,
        SettingInfo(
            one_of(*get_args(Notify)),
            "what happens when a long reply ends while another window has the focus: the terminal's bell rings, "
            "or the terminal shows a notification, if it can",
            has_flag=False,
        ),
    ] = "off"
    keys: Annotated[
        Mapping[str, str] | None,
        SettingInfo(
            None, "other keys for the actions of the chat", unset="the keys in the help (f1)", has_flag=False
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    default: Any
    info: SettingInfo

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.info.label or self.name

    @property
    def flag(self) -> str:
        """Empty if it has none."""
        return f"--{self.name.replace('_', '-')}" if self.info.has_flag else ""

    @property
    def variable(self) -> str:
        """The environment variable; empty for a setting that only the file can have."""
        return variable_of(self.name) if self.info.kind else ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names accepted in the file: its own and its alias."""
        return (self.name, self.info.alias) if self.info.alias else (self.name,)

    def display_text(self, value: Any) -> str:
        """A value for people to read; for one that is not set, what that means."""
        if value in (None, ""):
            return self.info.unset
        if self.info.kind is None:
            return ", ".join(f"{action}: {keys}" for action, keys in value.items())
        return self.info.kind.to_text(value)


def variable_of(name: str) -> str:
    """`SLIPSTREAM_TOP_K` for `top_k`."""
    return f"SLIPSTREAM_{name.upper()}"


@cache
def table() -> Mapping[str, Setting]:
    """Every setting by name, in display order."""
    hints = get_type_hints(Settings, include_extras=True)
    rows = {}
    for field in fields(Settings):
        (info,) = (hint for hint in get_args(hints[field.name]) if isinstance(hint, SettingInfo))
        assert field.default is not MISSING
        rows[field.name] = Setting(field.name, field.default, info)
    return rows


def per_chat() -> Mapping[str, Setting]:
    """The settings that each chat can have its own value of."""
    return {name: setting for name, setting in table().items() if setting.info.is_per_chat}
