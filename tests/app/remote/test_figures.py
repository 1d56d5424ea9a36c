"""What each server really sent (see the table of servers in app/README.md), read under its own definition.

The answers were recorded from the versions named there, and shortened to their first and last messages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.remote import kinds
from app.remote.counters import RequestCounters, growth, read_counters
from app.remote.figures import Reported
from app.remote.kinds import ServerKind
from mlx_engine.protocol.events import Failed, Finished, Part, ServerFigures
from mlx_engine.protocol.stats import ServerStats
from tests.app.remote.conftest import Talk, TalkTo
from tests.fakes.chat_server import ChatServer, chunk, stream, usage

RECORDED = Path(__file__).with_name("recorded")
OWNERS = {kind.name: kind.owner for kind in kinds.OF_A_PORT}


def recorded(name: str) -> list[str]:
    return (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


def is_like(server: ChatServer, kind: ServerKind) -> None:
    """Let the server be recognised as one of this kind."""
    entry: dict[str, Any] = {"id": "pocket", "created": 1}
    if kind.owner:
        entry["owned_by"] = kind.owner
    if kind is kinds.LITELLM:
        server.model_headers = {"x-litellm-version": "1.108.7"}
    elif kind is kinds.MLX_VLM:
        server.model_headers = {"server": "mlx_vlm/0.7.10"}
    elif kind is kinds.MLX_LM:
        server.model_headers = {"server": "BaseHTTP/0.6 Python/3.11.7"}
    server.models = {"data": [entry]}


def replay(server: ChatServer, talk_to: TalkTo, kind: ServerKind, name: str, **options: Any) -> tuple[Talk, Any]:
    is_like(server, kind)
    talk = talk_to(server)
    server.answers.append(stream(*recorded(name), "[DONE]"))
    return talk, talk.ask(**options)


@pytest.mark.parametrize(
    ("kind", "name", "figures"),
    [
        (kinds.MLX_LM, "mlx_lm", {"prompt_tokens": 26, "cached_tokens": 25, "generated_tokens": 24}),
        (
            kinds.MLX_VLM,
            "mlx_vlm_drafting",
            {"prompt_tokens": 1700, "cached_tokens": 0, "generated_tokens": 4, "drafted": 4, "accepted": 2,
             "rounds": 2, "tokens_per_round": 2.0, "peak_memory_bytes": 79_993_822},
        ),
        (
            kinds.VLLM_MLX,
            "vllm_mlx",
            {"prompt_tokens": 26, "generated_tokens": 26, "is_about": True, "drafted": 19, "accepted": 17},
        ),
        (kinds.RAPID_MLX, "rapid_mlx", {"prompt_tokens": 26, "cached_tokens": 26, "generated_tokens": 24}),
        (
            kinds.LLAMA_CPP,
            "llama_cpp",
            {"prompt_tokens": 19, "cached_tokens": 5, "generated_tokens": 24, "drafted": 17, "accepted": 17,
             "rounds": 6, "tokens_per_round": 23 / 6},
        ),
        (kinds.LLAMA_CPP_PYTHON, "llama_cpp_python", {}),
        (kinds.VLLM, "vllm", {"prompt_tokens": 19, "cached_tokens": 0, "generated_tokens": 24}),
        (
            kinds.VLLM,
            "vllm_metrics",
            {"prompt_tokens": 19, "cached_tokens": 0, "generated_tokens": 41, "drafted": 30, "accepted": 30,
             "rounds": 10, "tokens_per_round": 4.0},
        ),
        (kinds.TRANSFORMERS, "transformers", {"prompt_tokens": 19, "generated_tokens": 24}),
        (kinds.LITELLM, "litellm", {"prompt_tokens": 19, "cached_tokens": 18, "generated_tokens": 24}),
    ],
)  # fmt: skip
def test_figures_as_recorded(
    server: ChatServer, talk_to: TalkTo, kind: ServerKind, name: str, figures: dict[str, Any]
) -> None:
    talk, finished = replay(server, talk_to, kind, name)
    assert isinstance(finished, Finished)
    assert finished.reported == ServerFigures(kind.name, **figures)
    assert finished.reason == "length" or kind is kinds.VLLM_MLX
    assert talk.text


def test_the_sums_show_that_accepted_counts_no_bonus() -> None:
    for tokens, accepted, rounds in ((35, 24, 10), (41, 30, 10), (24, 17, 6)):
        assert tokens == 1 + accepted + rounds


def test_vllm_mlx_says_stop_where_the_limit_ended_the_reply(server: ChatServer, talk_to: TalkTo) -> None:
    assert replay(server, talk_to, kinds.VLLM_MLX, "vllm_mlx", max_tokens=24)[1].reason == "length"
    assert replay(server, talk_to, kinds.VLLM_MLX, "vllm_mlx", max_tokens=200)[1].reason == "stop"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kinds.VLLM_MLX, "vllm_mlx_busy"),
        (kinds.VLLM, "vllm_engine_died"),
        (kinds.TRANSFORMERS, "transformers_error"),
        (kinds.LLAMA_CPP_PYTHON, "llama_cpp_python_interrupted"),
    ],
)
def test_failures_within_a_success_as_recorded(
    server: ChatServer, talk_to: TalkTo, kind: ServerKind, name: str
) -> None:
    assert isinstance(replay(server, talk_to, kind, name)[1], Failed)


def test_mlx_vlm_without_its_last_message_reports_nothing_of_the_noise(
    server: ChatServer, talk_to: TalkTo
) -> None:
    _, finished = replay(server, talk_to, kinds.MLX_VLM, "mlx_vlm")
    assert finished.reported == ServerFigures("mlx-vlm")


def test_llama_cpp_without_a_drafter_has_no_acceptance() -> None:
    reported = Reported(objects={"timings": {"cache_n": 0, "prompt_n": 9, "predicted_n": 5, "predicted_ms": 1.0}})
    assert kinds.LLAMA_CPP.figures(reported, "") == ServerFigures("", 9, 0, 5)


def test_slipstreams_own_object() -> None:
    own = {"drafter": "assistant", "drafted_tokens": 30, "accepted_tokens": 24, "rounds": 11,
           "tokens_per_round": 3.2, "speedup": 1.9, "tokens_per_s": 50.0, "disk_tokens": 4}  # fmt: skip
    figures = kinds.SLIPSTREAM.figures(Reported(usage(9, 35)["usage"], {"slipstream": own}), "Slipstream")
    assert (figures.drafted, figures.accepted, figures.rounds, figures.disk_tokens) == (30, 24, 10, 4)
    assert (figures.tokens_per_round, figures.speedup) == (3.2, 1.9)
    unmeasured = dict.fromkeys(own)
    figures = kinds.SLIPSTREAM.figures(Reported(usage(9, 35)["usage"], {"slipstream": unmeasured}), "")
    assert (figures.drafted, figures.accepted, figures.speedup) == (None, None, None)


def test_sglang_counts_drafts_of_full_width_and_zeros_mean_nothing() -> None:
    def figures(proposed: int, correct: int, rounds: int) -> ServerFigures:
        details = {"spec_num_correct_drafts": correct, "spec_num_proposed_drafts": proposed,
                   "spec_verify_ct": rounds, "spec_accept_length": 4.0}  # fmt: skip
        return kinds.SGLANG.figures(Reported({}, {"sglext": {"spec_tokens_details": details}}), "")

    assert figures(30, 20, 10) == ServerFigures(
        "", drafted=30, accepted=20, rounds=10, tokens_per_round=3.0, remark="of full width"
    )
    assert figures(0, 0, 0) == ServerFigures("")
    assert kinds.SGLANG.asks == {"return_spec_tokens_details": True}


def test_lm_studio_names_the_drafts_that_it_ignored() -> None:
    stats = {"total_draft_tokens_count": 40, "accepted_draft_tokens_count": 30, "ignored_draft_tokens_count": 4,
             "tokens_per_second": 51.4}  # fmt: skip
    figures = kinds.LM_STUDIO.figures(Reported({}, {"stats": stats}), "")
    assert (figures.drafted, figures.accepted, figures.remark) == (40, 30, "(4 ignored)")


def test_zero_of_zero_tokens_is_not_known_and_litert_lm_hides_the_limit(
    server: ChatServer, talk_to: TalkTo
) -> None:
    assert kinds.LITERT_LM.figures(Reported(usage(0, 0)["usage"]), "") == ServerFigures("")
    assert kinds.LITERT_LM.miscounts_ends
    assert kinds.LITERT_LM.token_limit == "max_completion_tokens"


COUNTERS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="pocket"}} {running}
vllm:request_success_total{{engine="0",finished_reason="stop"}} {stopped}
vllm:request_success_total{{engine="0",finished_reason="length"}} 2.0
vllm:generation_tokens_total{{engine="0"}} {generated}
vllm:spec_decode_num_drafts_total{{engine="0"}} {drafts}
vllm:spec_decode_num_draft_tokens_total{{engine="0"}} {drafted}
vllm:spec_decode_num_accepted_tokens_total{{engine="0"}} {accepted}
vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",position="0"}} 7.0
not a number at all
nan_total NaN
"""


def counters(running: int, stopped: int, generated: int, drafts: int, drafted: int, accepted: int) -> str:
    return COUNTERS.format(
        running=running, stopped=stopped, generated=generated, drafts=drafts, drafted=drafted, accepted=accepted
    )


@pytest.mark.parametrize(
    ("running_before", "running_after", "finished", "generated", "is_known"),
    [
        (0, 0, 1, 24, True),
        (1, 0, 1, 24, False),
        (0, 1, 1, 24, False),
        (0, 0, 2, 24, False),
        (0, 0, 0, 24, False),
        (0, 0, 1, 30, False),
    ],
    ids=["alone", "began before", "goes on", "ended too", "not counted", "broken off meanwhile"],
)
def test_vllms_counters_count_only_if_no_other_request_ran(
    server: ChatServer,
    talk_to: TalkTo,
    running_before: int,
    running_after: int,
    finished: int,
    generated: int,
    is_known: bool,
) -> None:
    is_like(server, kinds.VLLM)
    before = counters(running_before, 5, 100, 10, 30, 20)
    after = counters(running_after, 5 + finished, 100 + generated, 20, 60, 44)
    server.metrics.extend((before, before, after))
    server.answers.append(stream(*recorded("vllm")))
    figures = talk_to(server).ask().reported
    expected = (30, 24, 10, 3.4) if is_known else (None, None, None, None)
    assert (figures.drafted, figures.accepted, figures.rounds, figures.tokens_per_round) == expected


def test_vllms_counters_as_recorded(server: ChatServer, talk_to: TalkTo) -> None:
    """Of a server that had answered 25 requests, with an assistant, and answered one more."""
    is_like(server, kinds.VLLM)
    before, after = ((RECORDED / f"vllm_counters_{when}.txt").read_text() for when in ("before", "after"))
    server.metrics.extend((before, before, after))
    _, finished = replay(server, talk_to, kinds.VLLM, "vllm_drafting")
    assert finished.reported == ServerFigures(
        "vLLM", 14, 0, 13, drafted=12, accepted=8, rounds=4, tokens_per_round=3.0
    )
    assert finished.reported.generated_tokens == 1 + finished.reported.accepted + finished.reported.rounds


def test_rapid_mlxs_counters() -> None:
    text = 'rapid_mlx_requests_processed_total{} 3\nrapid_mlx_spec_decode_attempts_total{method="mtp"} 0\n'
    before = read_counters(text)
    after = read_counters(
        "rapid_mlx_requests_processed_total 4\n"
        'rapid_mlx_suffix_decode_draft_tokens_proposed_total{method="suffix"} 12\n'
        'rapid_mlx_suffix_decode_draft_tokens_accepted_total{method="suffix"} 9\n'
        'rapid_mlx_suffix_decode_verify_steps_total{method="suffix"} 3\n'
        'rapid_mlx_spec_decode_accept_ratio{method="mtp"} 0.0\n'
    )
    grown = growth(before, after, RequestCounters("rapid_mlx_requests_processed_total"))
    figures = kinds.RAPID_MLX.figures(Reported(counters=grown), "")
    assert (figures.drafted, figures.accepted, figures.tokens_per_round) == (12, 9, 4.0)
    assert kinds.RAPID_MLX.figures(Reported(counters={}), "") == ServerFigures("")


def test_speed_and_first_token_are_measured_here() -> None:
    """Of the text, not of messages: the first ones are empty, and one may carry several tokens."""
    stats = ServerStats()
    stats.add(Part(1, "", "", 0.1))
    for text, elapsed_s in (("a", 0.5), ("bcd", 1.0), ("e", 2.5)):
        stats.add(Part(1, text, "", elapsed_s))
    assert (stats.ttft_s, stats.decode_s, stats.tokens_per_s) == (0.5, 2.0, None)
    reported = ServerFigures("x", generated_tokens=9)
    stats.add(Finished(1, "stop", "", "", None, None, None, reported=reported))
    assert stats.tokens_per_s == 4.0
    assert stats.acceptance is None


@pytest.mark.parametrize("value", [None, "x", -1, True, float("nan"), float("inf"), 1.5, [], {}])
def test_odd_values_are_not_reported(value: Any) -> None:
    timings = {"predicted_n": value, "draft_n": value, "draft_n_accepted": value, "cache_n": value}
    odd = Reported({"prompt_tokens": value, "completion_tokens": value}, {"timings": timings})
    for kind in kinds.OF_A_PORT:
        assert kind.figures(odd, "") == ServerFigures("")


def test_of_each_object_the_last_one_counts() -> None:
    reported = Reported()
    for message in (usage(1, 1), usage(1, 5), chunk("x", usage=None, timings={}), chunk("x", timings=None)):
        reported.read(message)
    assert reported.usage["completion_tokens"] == 5
    assert reported.objects == {}
