"""Everything that can be set: one table with the name, the kind, the default and the meaning of each setting.

The file, the environment, the flags, the panel of a chat, `slipstream settings` and the example all come from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_type_hints

from app.settings.kinds import Choice, FreeText, Kind, Number, one_of, switch
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, DraftSetting, SamplingRule

SendKey = Literal["enter", "ctrl+enter", "alt+enter", "ctrl+s"]

THEMES = (
    "textual-dark", "textual-light", "nord", "gruvbox", "catppuccin-mocha", "catppuccin-latte",
    "catppuccin-frappe", "catppuccin-macchiato", "dracula", "tokyo-night", "monokai", "flexoki", "solarized-light",
    "solarized-dark", "rose-pine", "rose-pine-moon", "rose-pine-dawn", "atom-one-dark", "atom-one-light",
    "ansi-dark", "ansi-light",
)  # fmt: skip
"""Textual's own; listed here because the shell must know them without loading Textual."""

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
FOLDER = "the folder of an assistant or a smaller model, its hub id, auto, lookup or none"


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """What a person is told of one setting."""

    kind: Kind | None
    """None: a mapping, which only the file can hold."""
    help: str
    unset: str = ""
    """What it means that nothing is set, where that is the default."""
    is_per_chat: bool = False
    """Whether a chat may have a value of its own."""
    has_flag: bool = True
    alias: str = ""
    """Another name that is taken in the file and the environment."""
    example: str = ""
    """What the example file shows, where the default is nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The values. None: not set."""

    model: Annotated[
        str | None,
        SettingInfo(
            FreeText("a name of `slipstream models list`, a folder or a hub id", "NAME|FOLDER|HUB-ID"),
            "a target that is here; `slipstream models list` names them",
            unset="the one chosen last in the chat, else the pocket model",
            example="e4b",
        ),
    ] = None
    drafter: Annotated[
        str,
        SettingInfo(
            FreeText(FOLDER, "FOLDER|HUB-ID|auto|lookup|none"),
            "folder of its assistant or of a smaller model of the family; lookup: what the text itself suggests, "
            "without weights; auto: the assistant if it is there, else lookup",
        ),
    ] = "auto"
    drafter_bits: Annotated[
        int | None,
        SettingInfo(
            Choice({"4": 4, "8": 8}, "4 or 8", "4|8"),
            "quantize the drafter's weights while loading",
            unset="as they are",
            example="4",
        ),
    ] = None
    compile: Annotated[
        bool | None,
        SettingInfo(
            switch(),
            "compile what lies between the attentions of target and drafter; on a processor the first time takes "
            "half a minute",
            unset="on with Metal, off without",
            example="off",
        ),
    ] = None
    wire: Annotated[
        bool,
        SettingInfo(
            switch(),
            "keep the weights wired in memory, on Metal: a model that all but fills it stays fast; kernel panics "
            "have been tied to it",
        ),
    ] = False
    oversized: Annotated[
        bool,
        SettingInfo(switch(), "load a model that is too large for memory; this can crash the machine"),
    ] = False
    draft: Annotated[
        DraftSetting,
        SettingInfo(
            DRAFT, "tokens to draft per round; auto picks the length that is fastest right now", is_per_chat=True
        ),
    ] = "auto"
    draft_start: Annotated[
        int | None,
        SettingInfo(
            DRAFT_START,
            "the first draft length of auto, before it has measured anything",
            unset="by the kind of GPU",
            example="4",
        ),
    ] = None
    temp: Annotated[
        float | None,
        SettingInfo(
            TEMPERATURE,
            "temperature; 0 is greedy",
            unset="as the model says",
            is_per_chat=True,
            alias="temperature",
            example="0.7",
        ),
    ] = None
    top_k: Annotated[
        int | None,
        SettingInfo(
            TOP_K,
            "keep the K likeliest tokens; 0 keeps all",
            unset="as the model says",
            is_per_chat=True,
            example="64",
        ),
    ] = None
    top_p: Annotated[
        float | None,
        SettingInfo(
            Number(1e-6, 1, placeholder="P", range="above 0, up to 1"),
            "keep the likeliest tokens that hold P; 1 keeps all",
            unset="as the model says",
            is_per_chat=True,
            example="0.95",
        ),
    ] = None
    min_p: Annotated[
        float,
        SettingInfo(
            Number(0, 1, placeholder="P"),
            "keep tokens at least P times as likely as the likeliest; 0 keeps all",
            is_per_chat=True,
        ),
    ] = 0.0
    repetition_penalty: Annotated[
        float,
        SettingInfo(
            Number(0.01, 100, placeholder="R"),
            "above 1: words that the reply already has become less likely; 1 changes nothing",
            is_per_chat=True,
        ),
    ] = 1.0
    sampling: Annotated[
        SamplingRule,
        SettingInfo(
            one_of("rejection", "coupled"),
            "both are exact; coupled: one seed, the same words with and without drafting",
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
            is_per_chat=True,
            example="7",
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        SettingInfo(
            MAX_TOKENS,
            "end the reply after N tokens",
            unset="up to the end of the context",
            is_per_chat=True,
            example="2000",
        ),
    ] = None
    think: Annotated[bool, SettingInfo(switch(), "let the model think first", is_per_chat=True)] = False
    system: Annotated[
        str | None,
        SettingInfo(
            FreeText(may_be_empty=True),
            "instructions ahead of the conversation",
            unset="none",
            is_per_chat=True,
            example="Answer in short sentences.",
        ),
    ] = None
    plain: Annotated[
        bool,
        SettingInfo(
            switch(),
            "chat line by line, without colours, for screen readers; `--plain` says so for once",
            has_flag=False,
        ),
    ] = False
    theme: Annotated[
        str | None,
        SettingInfo(
            one_of(*THEMES),
            "the colours of the chat",
            unset="the one chosen last in the chat",
            has_flag=False,
            example="nord",
        ),
    ] = None
    send_key: Annotated[
        SendKey,
        SettingInfo(
            one_of(*get_args(SendKey)),
            "what sends a message; with another key than enter, enter makes a new line (safe for input methods "
            "that end a word with enter), and ctrl+s, which every terminal passes on, sends as well",
            has_flag=False,
        ),
    ] = "enter"
    keys: Annotated[
        Mapping[str, str] | None,
        SettingInfo(None, "other keys for what the chat does", unset="those of the help (f1)", has_flag=False),
    ] = None


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    default: Any
    info: SettingInfo

    @property
    def flag(self) -> str:
        """What is typed; empty if nothing can be."""
        return f"--{self.name.replace('_', '-')}" if self.info.has_flag else ""

    @property
    def variable(self) -> str:
        """Of the environment; empty for what only the file can hold."""
        return variable_of(self.name) if self.info.kind else ""

    @property
    def names(self) -> tuple[str, ...]:
        """In the file: the name, and another one where there is one."""
        return (self.name, self.info.alias) if self.info.alias else (self.name,)

    def display_text(self, value: Any) -> str:
        """A value as a person reads it."""
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
    """Every setting by its name, in the order in which they are shown."""
    hints = get_type_hints(Settings, include_extras=True)
    rows = {}
    for field in fields(Settings):
        (info,) = (each for each in get_args(hints[field.name]) if isinstance(each, SettingInfo))
        assert field.default is not MISSING
        rows[field.name] = Setting(field.name, field.default, info)
    return rows


def per_chat() -> Mapping[str, Setting]:
    """The settings that a chat may have of its own."""
    return {name: setting for name, setting in table().items() if setting.info.is_per_chat}
