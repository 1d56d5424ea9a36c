"""The programs that serve models: how each is known, and where it differs from the others.

What is not known of a program is not sent to it: several refuse a request with a field that they do not know.
Every row was seen with the version that the table of servers in app/README.md names, or read in its source where
the table says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.remote import figures
from app.remote.counters import RequestCounters
from app.remote.figures import Reported
from mlx_engine.protocol.events import DraftSetting, ServerFigures

EXTRA_SAMPLERS = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}
DRAFTING_DROPS_PENALTY = frozenset({"repetition_penalty"})
LLAMA_SAMPLERS = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}


def _by_template(is_thinking: bool) -> dict[str, Any]:
    return {"chat_template_kwargs": {"enable_thinking": is_thinking}}


def _by_switch(is_thinking: bool) -> dict[str, Any]:
    return {"enable_thinking": is_thinking}


def _by_effort(is_thinking: bool) -> dict[str, Any]:
    return {"reasoning_effort": "medium" if is_thinking else "none"}


def _slipstream_draft(setting: DraftSetting) -> dict[str, Any]:
    return {"slipstream": {"draft": setting}}


def _vllm_mlx_draft(setting: DraftSetting) -> dict[str, Any]:
    return {"mllm_draft": setting != 0}


def _no_draft(setting: DraftSetting) -> dict[str, Any]:
    return {"num_draft_tokens": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKind:
    """One program."""

    name: str
    """For people."""
    port: int | None = None
    """Where it listens unless it is told otherwise."""
    owner: str | None = None
    """What it writes as the owner of its models, where that is its own word."""
    figures: Callable[[Reported, str], ServerFigures] = figures.of_usage
    """From what its stream said, and its name."""
    asks: Mapping[str, Any] | None = None
    """What a request has to contain so that the figures come."""
    samplers: Mapping[str, str] = field(default_factory=dict)
    """Its names for sampling options beside temperature, top_p and seed."""
    dropped_while_drafting: frozenset[str] = frozenset()
    """Those that it takes, and ignores when it drafts."""
    thinking: Callable[[bool], dict[str, Any]] | None = None
    """How a request switches thinking; None: it cannot."""
    drafting: Callable[[DraftSetting], dict[str, Any]] | None = None
    """What a request says of drafting; None: nothing."""
    why_drafting_stays: str = ""
    """Why a request cannot switch drafting; empty if it can, or if there is nothing to say but that."""
    can_switch_drafting: bool = False
    has_draft_lengths: bool = False
    obeys_schemas: bool = True
    continues: Mapping[str, Any] | None = None
    """What makes it go on with the last message of the assistant; None: it begins a new turn."""
    repeats_continued: bool = False
    """When it goes on with a message, it first sends that message again."""
    trims_continued: bool = False
    """It goes on from the last word, and so writes the spaces and lines behind that again."""
    token_limit: str = "max_tokens"
    """The field with the most tokens of a reply."""
    most_tokens: int | None = None
    """What to ask for where a person sets no limit and its own is small; None: its own fits."""
    share_of_context: int | None = None
    """The same as a part of the context, where more than fits ends in an error and loses the text."""
    counters: RequestCounters | None = None
    """Where its /metrics show that no other request grew its counters; None: they are not needed."""
    miscounts_ends: bool = False
    """It says `stop` where the limit on tokens ended the reply."""
    default_model: str | None = None
    """The name of the model that it was started with, whatever else it lists."""
    warning: str = ""
    """What its user has to know."""

    @property
    def why_fixed(self) -> str:
        """Why a request cannot switch drafting, as a sentence; empty if it can."""
        if self.can_switch_drafting:
            return ""
        return self.why_drafting_stays or f"A request to {self.name} cannot switch drafting."


SLIPSTREAM = ServerKind(
    name="Slipstream", port=8765, owner="slipstream", figures=figures.of_slipstream, samplers=EXTRA_SAMPLERS,
    thinking=_by_template, drafting=_slipstream_draft, can_switch_drafting=True, has_draft_lengths=True,
    continues={},
)  # fmt: skip
MLX_LM = ServerKind(
    name="mlx_lm.server", port=8080, samplers=EXTRA_SAMPLERS, thinking=_by_template,
    drafting=_no_draft, obeys_schemas=False, most_tokens=32_768, default_model="default_model",
    why_drafting_stays="mlx_lm.server changes Gemma 4's replies when it drafts (0.32.2), so every request "
    "switches drafting off.",
)  # fmt: skip
MLX_VLM = ServerKind(
    name="mlx-vlm", port=8080, figures=figures.of_mlx_vlm, thinking=_by_switch, obeys_schemas=False,
    samplers={name: name for name in ("top_k", "repetition_penalty")},
    dropped_while_drafting=DRAFTING_DROPS_PENALTY,
)  # fmt: skip
VLLM_MLX = ServerKind(
    name="vllm-mlx", port=8000, owner="vllm-mlx", figures=figures.of_vllm_mlx, samplers=EXTRA_SAMPLERS,
    dropped_while_drafting=DRAFTING_DROPS_PENALTY,
    thinking=_by_template, drafting=_vllm_mlx_draft, can_switch_drafting=True, miscounts_ends=True,
)  # fmt: skip
RAPID_MLX = ServerKind(
    name="rapid-mlx", port=8000, owner="rapid-mlx", figures=figures.of_rapid_mlx, samplers=EXTRA_SAMPLERS,
    thinking=_by_switch, share_of_context=2,
    counters=RequestCounters("rapid_mlx_requests_processed_total"),
)  # fmt: skip
LLAMA_CPP = ServerKind(
    name="llama.cpp", port=8080, owner="llamacpp", figures=figures.of_llama_cpp, samplers=LLAMA_SAMPLERS,
    thinking=_by_template, continues={}, repeats_continued=True,
)  # fmt: skip
LLAMA_CPP_PYTHON = ServerKind(
    name="llama-cpp-python", port=8000, owner="me", samplers=LLAMA_SAMPLERS,
    warning="llama-cpp-python counts no tokens of streamed replies, and ends one chat when another begins.",
)  # fmt: skip
VLLM = ServerKind(
    name="vLLM", port=8000, owner="vllm", figures=figures.of_vllm, samplers=EXTRA_SAMPLERS,
    thinking=_by_template, continues={"continue_final_message": True, "add_generation_prompt": False},
    trims_continued=True,
    counters=RequestCounters("vllm:request_success_total", "vllm:num_requests_running"),
)  # fmt: skip
SGLANG = ServerKind(
    name="SGLang", port=30000, owner="sglang", figures=figures.of_sglang, samplers=EXTRA_SAMPLERS,
    thinking=_by_template, asks={"return_spec_tokens_details": True}, continues={"continue_final_message": True},
)  # fmt: skip
# openai/openai.go and server/prompt.go of August 2026: the owner is the namespace in the model's name, "library"
# for Ollama's own models; of a chat that is longer than the context, the oldest messages are left out.
OLLAMA = ServerKind(
    name="Ollama", port=11434, owner="library", thinking=_by_effort,
    warning="Of a chat longer than the context that Ollama has set (`ollama ps` shows it), Ollama may leave out "
    "the oldest messages, without saying so.",
)  # fmt: skip
# The fields are those of the page "Chat Completions" in its documentation, without min_p. That effort switches
# thinking, also of Gemma 4, is said in lmstudio-ai/lmstudio-bug-tracker#2057 (0.4.17), and the owner seen in
# JetBrains/koog#139.
LM_STUDIO = ServerKind(
    name="LM Studio", port=1234, owner="organization_owner", figures=figures.of_lm_studio,
    samplers={"top_k": "top_k", "repetition_penalty": "repeat_penalty"}, thinking=_by_effort,
)  # fmt: skip
TRANSFORMERS = ServerKind(
    name="transformers serve", port=8000, owner="local", most_tokens=32_768, obeys_schemas=False
)
LITELLM = ServerKind(
    name="LiteLLM", port=4000,
    warning="Through LiteLLM nothing is known of drafting, of the context or of the server behind it.",
)  # fmt: skip
# commands/serve of 0.18.1: what a request may contain is in openai_common.py and openai_chat_completions.py.
LITERT_LM = ServerKind(
    name="LiteRT-LM", port=9379, owner="litert-lm", samplers={"top_k": "top_k"}, thinking=_by_effort,
    token_limit="max_completion_tokens", miscounts_ends=True,
)  # fmt: skip
VERTEX = ServerKind(name="Vertex AI")
BEDROCK = ServerKind(name="Bedrock")
OTHER = ServerKind(name="this server")

OF_A_PORT = (
    SLIPSTREAM, MLX_LM, MLX_VLM, VLLM_MLX, RAPID_MLX, LLAMA_CPP, LLAMA_CPP_PYTHON, VLLM, SGLANG, OLLAMA, LM_STUDIO,
    TRANSFORMERS, LITELLM, LITERT_LM,
)  # fmt: skip


def recognised(host: str, headers: Mapping[str, str], models: tuple[Mapping[str, Any], ...]) -> ServerKind:
    """Which program answers. headers: of its list of models, in lower case; models: the entries of that list."""
    if host.endswith("aiplatform.googleapis.com"):
        return VERTEX
    if host.startswith("bedrock") and host.endswith((".amazonaws.com", ".api.aws")):
        return BEDROCK
    server = headers.get("server", "")
    if "x-litellm-version" in headers or any(model.get("created") == _LITELLM_CREATED for model in models):
        return LITELLM
    if server.startswith("mlx_vlm/"):
        return MLX_VLM
    owners = {str(model.get("owned_by")) for model in models}
    for kind in OF_A_PORT:
        if kind.owner in owners:
            return kind
    if server == "llama.cpp":
        return LLAMA_CPP
    if server.startswith("BaseHTTP/") and owners <= {"None"}:
        return MLX_LM
    return OTHER


_LITELLM_CREATED = 1_677_610_602
"""LiteLLM gives all models the same date."""
