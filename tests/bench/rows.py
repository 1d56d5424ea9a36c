"""The rows of the table: what is asked of both sides, and what of the answers is the figure.

Drafted rows give either side the length that does best for it. A random pair's drafts are replaced on both
sides, after they were computed, by one script that is right at 75% of the positions: random assistants are never
right, and weights made to agree would say no more about speed. Temperature 1 is measured on the pocket pair alone,
where distributions mean something.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlx_engine.protocol.events import LOOKUP
from tests.bench.bench_of_pair import PairBench, texts_by_kind
from tests.bench.measure import Effort, Ratio, abba, best
from tests.bench.sides import Side
from tests.bench.table import Figure

LENGTHS = (2, 4, 6, 8, 12)
ASSISTANT = "assistant"
SEED = 11
HOST_LENGTH = 4
TURNS, CONVERSATION_TOKENS, REPLY_TOKENS = 10, 4000, 32
NEW_TOKENS = 22
LONG_PROMPT_TOKENS = 2048
MEMORY_TOKENS, MEMORY_SAMPLES = 10_000, 5
GROWTH_ALLOWED = 0.01
"""Of what is in use: what the allocator rounds up varies by that much."""

Rows = Iterator[Figure]


def plain(bench: PairBench, effort: Effort) -> Rows:
    """Decoding without drafts against mlx-lm's."""
    prompts = bench.prompts(effort.replies)
    sides = (bench.ours, bench.mlx_lm)
    ours, theirs = (bench.rate(side, prompts, 0, effort.tokens) for side in sides)
    measured = abba(ours, theirs, effort)
    totals = [bench.replies(side, prompts, 0, effort.tokens) for side in sides]
    yield _ratio("plain", bench, "plain decoding / mlx-lm", measured, 1.0, _per_processor_second(totals))


def greedy(bench: PairBench, effort: Effort) -> Rows:
    """Drafted decoding against mlx-vlm's, each at its best length."""
    prompts = bench.prompts(effort.replies)
    mine = _best_length(bench, bench.ours, prompts, effort)
    its = _best_length(bench, bench.mlx_vlm, prompts, effort)
    measured = abba(
        bench.rate(bench.ours, prompts, mine, effort.tokens),
        bench.rate(bench.mlx_vlm, prompts, its, effort.tokens),
        effort,
    )
    totals = [
        bench.replies(side, prompts, length, effort.tokens)
        for side, length in ((bench.ours, mine), (bench.mlx_vlm, its))
    ]
    yield _ratio("greedy", bench, "drafted / mlx-vlm, greedy", measured, 1.3, _rounds_of(totals, (mine, its)))


def sampled(bench: PairBench, effort: Effort) -> Rows:
    """The same at temperature 1, with mlx-vlm's better way of drawing."""
    if bench.pair.is_random:
        return
    prompts = bench.prompts(effort.replies)
    settings: dict[str, Any] = {"temperature": 1.0, "seed": SEED}
    mine = _best_length(bench, bench.ours, prompts, effort, **settings)
    choices = [(length, positioned) for positioned in (False, True) for length in LENGTHS]
    runs = [
        bench.rate(bench.mlx_vlm, prompts, length, effort.tokens, is_positioned=positioned, **settings)
        for length, positioned in choices
    ]
    chosen = best(runs, effort.looks)
    its, positioned = choices[chosen]
    ours = bench.rate(bench.ours, prompts, mine, effort.tokens, **settings)
    measured = abba(ours, runs[chosen], effort)
    totals = [
        bench.replies(bench.ours, prompts, mine, effort.tokens, **settings),
        bench.replies(bench.mlx_vlm, prompts, its, effort.tokens, is_positioned=positioned, **settings),
    ]
    rounds = _rounds_of(totals, (mine, its))
    yield _ratio("sampled", bench, "drafted / mlx-vlm, temperature 1", measured, 1.5, rounds)


def rounds(bench: PairBench, effort: Effort) -> Rows:
    """Host synchronisations and target passes per round, as the loop counts them."""
    total = bench.replies(bench.ours, bench.prompts(effort.replies), HOST_LENGTH, effort.tokens)
    for name, what in (("syncs", "host synchronisations per round"), ("passes", "target passes per round")):
        yield Figure("rounds", bench.pair.name, bench.blas, what, total[name] / total["rounds"], 1.0, "at most")


def host(bench: PairBench, effort: Effort) -> Rows:
    """Processor time of the leading thread per round: without MLX's own evaluation, and with it.

    Without, it is what putting the graph of a round together takes. With, it is also handing that over, operation
    by operation, and reading the outcome.
    """
    if bench.pair.name != "e2b":
        return
    prompts = bench.prompts(effort.replies)
    aims = (("own_host_s", "outside MLX's evaluation", 0.5), ("host_s", "evaluation's share included", None))
    for fact, where, bar in aims:

        def per_round(side: Side, fact: str = fact) -> float:
            total = bench.replies(side, prompts, HOST_LENGTH, effort.tokens)
            return float(total[fact] / total["rounds"])

        measured = abba(lambda: per_round(bench.ours), lambda: per_round(bench.mlx_vlm), effort)
        detail = f"{measured.a * 1e3:.1f} ms against {measured.b * 1e3:.1f} ms, {HOST_LENGTH} drafts"
        what = f"host time per round / mlx-vlm's, {where}"
        yield _ratio("host", bench, what, measured, bar, detail, kind="at most")


def auto(bench: PairBench, effort: Effort) -> Rows:
    """`auto` that has learned from some rounds against the best drafter and length, by the kind of prompt."""
    for kind, prompts in _prompts_by_kind(bench, effort):
        singles: list[tuple[str, int]] = [(ASSISTANT, length) for length in (0, 1, *LENGTHS)]
        if not bench.pair.is_random:
            singles += [(LOOKUP, length) for length in LENGTHS]
        fixed = [
            bench.rate(bench.ours, prompts, length, effort.tokens, drafters=[drafter])
            for drafter, length in singles
        ]
        chosen = best(fixed, effort.looks)
        rounds = _learn(bench, bench.ours, kind, prompts, effort)
        adaptive = bench.rate(bench.ours, prompts, "auto", effort.tokens, estimates=kind)
        measured = abba(adaptive, fixed[chosen], effort)
        total = bench.replies(bench.ours, prompts, "auto", effort.tokens, estimates=kind)
        detail = f"best single {singles[chosen][0]} {singles[chosen][1]}; {_drafting(total)}, knew {rounds} rounds"
        yield _ratio("auto", bench, f"auto / best single drafter and length, {kind}", measured, 0.97, detail)


def before(bench: PairBench, effort: Effort) -> Rows:
    """`auto` against that of an earlier commit, both with what they have learned, by the kind of prompt."""
    if bench.before is None:
        return
    for kind, prompts in _prompts_by_kind(bench, effort):
        for side in (bench.ours, bench.before):
            _learn(bench, side, kind, prompts, effort)
        now, earlier = (
            bench.rate(side, prompts, "auto", effort.tokens, estimates=kind) for side in (bench.ours, bench.before)
        )
        measured = abba(now, earlier, effort)
        total = bench.replies(bench.ours, prompts, "auto", effort.tokens, estimates=kind)
        its = bench.replies(bench.before, prompts, "auto", effort.tokens, estimates=kind)
        detail = f"{_drafting(total)}; {_per_round(total):.2f} against {_per_round(its):.2f} tokens per round"
        aim = 1.8 if kind.startswith("rewriting") else 0.99
        yield _ratio("before", bench, f"auto / auto before, {kind}", measured, aim, detail)


def wrong(bench: PairBench, effort: Effort) -> Rows:
    """A drafter that is never right, under `auto` that knows nothing yet, against drafting off."""
    prompts = bench.prompts(effort.replies)
    tokens = 3 * effort.tokens

    def drafted() -> float:
        script = bench.script(bench.ours, prompts[0], tokens, acceptance=0.0)
        reply = bench.reply(bench.ours, prompts[0], "auto", tokens, script=script)
        return float(reply["tokens"] / reply[bench.clock.decoding])

    stop, bench.stop = bench.stop, []
    off = bench.rate(bench.ours, prompts[:1], 0, tokens)
    measured = abba(drafted, off, effort)
    bench.stop = stop
    detail = f"{tokens} tokens, estimates fresh"
    yield _ratio("wrong", bench, "always-wrong drafter under auto / off", measured, 0.95, detail)


def turns(bench: PairBench, effort: Effort) -> Rows:
    """Time to the first token in the last turn of a long conversation.

    Once with replies going back into the prompt as they were generated, and once without their first half, as
    when templates leave out thoughts: then what was read of the reply has to be forgotten.
    """
    if bench.pair.is_random:
        return
    for what, left_out in (("replies as generated", 0), ("thoughts left out", REPLY_TOKENS // 2)):
        answers: list[dict[str, Any]] = []

        def converse(side: Side, answers: list[dict[str, Any]] = answers, left_out: int = left_out) -> float:
            answers.append(_converse(bench, side, left_out))
            return float(answers[-1][bench.clock.first_token])

        few = dataclasses.replace(effort, repeats=min(effort.repeats, 3))
        measured = abba(lambda: converse(bench.ours), lambda: converse(bench.mlx_vlm), few)
        mine, its = answers[0], answers[1]
        detail = (
            f"{measured.a * 1e3:.0f} ms against {measured.b * 1e3:.0f} ms; {mine['prompt_tokens']} tokens, "
            f"of which kept {mine['cached_tokens']} and {its['cached_tokens']}"
        )
        figure = f"turn {TURNS}, time to first token / mlx-vlm's, {what}"
        yield _ratio("turns", bench, figure, measured, 0.25, detail, "at most")


def chats(bench: PairBench, effort: Effort) -> Rows:
    """Going back to the first of two chats: both kept, against only one, so that the chat is read again."""
    prompts = [_long_prompt(bench, CONVERSATION_TOKENS, seed) for seed in (37, 41)]
    answers: dict[bool, dict[str, Any]] = {}

    def first_token(is_kept: bool) -> float:
        for is_first, prompt in ((True, prompts[0]), (not is_kept, prompts[1])):
            _turn(bench.ours, prompt, is_first=is_first)
        again = [*prompts[0], *_long_prompt(bench, NEW_TOKENS, 43)]
        answers[is_kept] = _turn(bench.ours, again, is_first=not is_kept)
        return float(answers[is_kept][bench.clock.first_token])

    few = dataclasses.replace(effort, repeats=min(effort.repeats, 3))
    measured = abba(lambda: first_token(True), lambda: first_token(False), few)
    total = CONVERSATION_TOKENS + NEW_TOKENS
    read, anew = (total - answers[is_kept]["cached_tokens"] for is_kept in (True, False))
    yield Figure(
        "chats",
        bench.pair.name,
        bench.blas,
        "tokens read on return to a chat / anew",
        read / anew,
        0.05,
        "at most",
    )
    detail = f"{measured.a * 1e3:.0f} ms against {measured.b * 1e3:.0f} ms; {read} and {anew} tokens read"
    yield _ratio(
        "chats", bench, "two chats in turn, time to first token / anew", measured, 0.05, detail, "at most"
    )


def _long_prompt(bench: PairBench, tokens: int, step: int) -> list[int]:
    return [(step * at) % (bench.vocab_size - 10) + 10 for at in range(tokens)]


def _turn(side: Side, prompt: list[int], *, is_first: bool) -> dict[str, Any]:
    return side.ask(
        "turn",
        prompt=prompt,
        is_first=is_first,
        marks=[len(prompt)],
        length=0,
        max_tokens=1,
        temperature=0.0,
        stop=[],
    )


def prefill(bench: PairBench, effort: Effort) -> Rows:
    """Time to the first token of a long prompt, in the engine's own chunks: against 256, and against mlx-lm."""
    prompt = [(37 * at) % (bench.vocab_size - 10) + 10 for at in range(LONG_PROMPT_TOKENS)]

    def first_token(side: Side, chunk: int | None = None) -> float:
        settings = {"chunk": chunk} if side is bench.ours else {}
        return float(bench.reply(side, prompt, 0, 1, **settings)[bench.clock.first_token])

    few = dataclasses.replace(effort, repeats=min(effort.repeats, 3))
    for name, bar, other in (
        ("chunks of 256", 1.03, lambda: first_token(bench.ours, 256)),
        ("mlx-lm's", None, lambda: first_token(bench.mlx_lm)),
    ):
        measured = abba(lambda: first_token(bench.ours), other, few)
        detail = f"{measured.a:.2f} s against {measured.b:.2f} s, {LONG_PROMPT_TOKENS} tokens"
        yield _ratio("prefill", bench, f"time to first token / {name}", measured, bar, detail, "at most")


def memory(bench: PairBench, effort: Effort) -> Rows:
    """Peak over weights and K/V; and what is in use beside them, late in a long reply against early."""
    if bench.pair.name == "e2b":
        for prompt_tokens in (48, 2048):
            prompt = [(37 * at) % (bench.vocab_size - 10) + 10 for at in range(prompt_tokens)]
            reply = bench.reply(bench.ours, prompt, HOST_LENGTH, effort.tokens)
            held = bench.weights_bytes + reply["kv_bytes"]
            detail = f"peak {reply['peak_bytes'] / 1e6:.0f} MB over {held / 1e6:.0f} MB"
            what = f"memory peak / (weights + K/V), prompt of {prompt_tokens}"
            yield Figure(
                "memory",
                bench.pair.name,
                bench.blas,
                what,
                reply["peak_bytes"] / held,
                1.1,
                "at most",
                detail=detail,
            )
    if bench.pair.name == "pocket":
        yield _growth(bench, effort)


def coupled(bench: PairBench, effort: Effort) -> Rows:
    """What coupled sampling costs against rejection, at temperature 1; counted, not timed."""
    if bench.pair.is_random:
        return
    prompts = bench.prompts(max(effort.replies, 6)) * 2
    totals = {
        rule: bench.replies(bench.ours, prompts, HOST_LENGTH, 64, temperature=1.0, seed=SEED, rule=rule)
        for rule in ("rejection", "coupled")
    }
    for rule, total in totals.items():
        acceptance = total["accepted"] / total["drafted"]
        detail = f"acceptance {acceptance:.2f}, {HOST_LENGTH} drafts, {total['rounds']} rounds"
        figure = f"tokens per round at temperature 1, {rule}"
        yield Figure("coupled", bench.pair.name, bench.blas, figure, _per_round(total), detail=detail)


ROWS: dict[str, Callable[[PairBench, Effort], Rows]] = {
    "plain": plain,
    "greedy": greedy,
    "sampled": sampled,
    "rounds": rounds,
    "host": host,
    "auto": auto,
    "before": before,
    "wrong": wrong,
    "turns": turns,
    "chats": chats,
    "prefill": prefill,
    "memory": memory,
    "coupled": coupled,
}


def _prompts_by_kind(bench: PairBench, effort: Effort) -> Iterator[tuple[str, list[list[int]]]]:
    kinds: dict[str, Sequence[str]] = {"script": ()} if bench.pair.is_random else texts_by_kind()
    for kind, texts in kinds.items():
        yield kind, bench.prompts(effort.of_a_kind if texts else effort.replies, texts)


def _learn(bench: PairBench, side: Side, kind: str, prompts: list[list[int]], effort: Effort) -> int:
    """Let `auto` make rounds; how many."""
    rounds = 0
    while rounds < effort.learning_rounds:
        rounds += bench.replies(side, prompts, "auto", effort.tokens, estimates=kind)["rounds"]
    return rounds


def _drafting(total: dict[str, Any]) -> str:
    copied = total["copied"] / max(1, total["accepted"])
    return f"auto drafts {total['drafted'] / total['rounds']:.1f} a round, {copied:.0%} of the accepted are copies"


def _best_length(bench: PairBench, side: Side, prompts: list[list[int]], effort: Effort, **settings: Any) -> int:
    runs = [bench.rate(side, prompts, length, effort.tokens, **settings) for length in LENGTHS]
    return LENGTHS[best(runs, effort.looks)]


def _per_round(total: dict[str, Any]) -> float:
    return float(total["round_tokens"] / total["rounds"])


def _rounds_of(totals: list[dict[str, Any]], lengths: tuple[int, int]) -> str:
    mine, its = (f"{length} drafts {_per_round(total):.2f} tokens/round" for length, total in zip(lengths, totals))
    return f"{mine} against {its}; {_per_processor_second(totals)}"


def _per_processor_second(totals: list[dict[str, Any]]) -> str:
    """The ratio of the work done, which others on the machine disturb less than time."""
    mine, its = (total["tokens"] / total["cpu_s"] for total in totals)
    return f"tokens per processor second {mine / its:.2f}"


def _ratio(
    row: str,
    bench: PairBench,
    what: str,
    measured: Ratio,
    bar: float | None,
    detail: str = "",
    kind: Any = "at least",
) -> Figure:
    if not detail or kind == "at least":
        rates = f"{measured.a:.1f} against {measured.b:.1f} tokens/s"
        detail = f"{rates}; {detail}" if detail else rates
    return Figure(
        row, bench.pair.name, bench.blas, what, measured.value, bar, kind, measured.low, measured.high, detail
    )


def _converse(bench: PairBench, side: Side, left_out: int) -> dict[str, Any]:
    """Ten turns; `left_out`: tokens at the beginning of a reply that do not go back. The last turn's facts."""
    opening, ending = _turn_frame(bench)
    own = CONVERSATION_TOKENS // TURNS - REPLY_TOKENS + left_out - len(opening) - len(ending)
    said = bench.prompts(1)[0][len(opening) - 1 : -len(ending)]
    prompt: list[int] = []
    facts: dict[str, Any] = {}
    for turn in range(TURNS):
        begins = len(prompt)
        text = [(token if at % 3 else 300 + (at * 7 + turn * 131) % 1500) for at, token in enumerate(said * own)]
        prompt = prompt + (opening[1:] if prompt else opening) + text[:own] + ending
        facts = side.ask(
            "turn",
            prompt=prompt,
            is_first=turn == 0,
            marks=[begins, len(prompt)],
            length=3,
            max_tokens=REPLY_TOKENS,
            temperature=0.0,
            stop=[],
        )
        facts["prompt_tokens"] = len(prompt)
        prompt = prompt + facts["token_ids"][left_out:REPLY_TOKENS] + bench.stop[-1:]
    return facts


def _turn_frame(bench: PairBench) -> tuple[list[int], list[int]]:
    """What the template puts before and after a message: the tokens that two prompts have in common."""
    one, other = (bench.ours.ask("render", messages=[["user", text]])["ids"] for text in ("xyz", "How? What."))
    same = next(at for at, pair in enumerate(zip(one, other)) if pair[0] != pair[1])
    last = next(at for at, pair in enumerate(zip(one[::-1], other[::-1])) if pair[0] != pair[1])
    return one[:same], one[-last:]


def _growth(bench: PairBench, effort: Effort) -> Figure:
    tokens = MEMORY_TOKENS if effort.repeats > 1 else MEMORY_TOKENS // 20
    prompt = bench.prompts(1)[0]
    answer = bench.ours.ask(
        "memory",
        prompt=prompt,
        length=8,
        max_tokens=tokens + 20,
        every_tokens=tokens // MEMORY_SAMPLES,
        temperature=0.0,
        stop=[],
    )
    first, last = answer["samples"][0], answer["samples"][-1]
    detail = (
        f"beside K/V in use: {first[1] / 1e6:.2f} MB after {first[0]} tokens, "
        f"{last[1] / 1e6:.2f} MB after {last[0]}; "
        f"resident {first[2] / 1e6:.0f} and {last[2] / 1e6:.0f} MB"
    )
    growth = last[1] / first[1] - 1
    what = f"growth beside K/V over {tokens} tokens"
    return Figure("memory", bench.pair.name, bench.blas, what, growth, GROWTH_ALLOWED, "at most", detail=detail)
