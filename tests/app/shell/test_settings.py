"""`slipstream settings`, and the commands that depend on settings, from the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.cli import main
from app.core import pair_choice
from app.core.pair_choice import PairOptions, choose_pair, pair_options_of
from app.core.start import first_pair, reply_options_of
from app.settings.effective import read_settings
from app.settings.remembered import RememberedChoices
from app.settings.table import Settings
from app.system import places
from app.system.exit_codes import FAILED
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import LOOKUP, Load, SamplingOptions
from models import memory_fit
from models.catalog import load_catalog
from models.memory_fit import Fit, Machine, PairSize
from models.pocket import TARGET_FOLDER
from tests.fakes.cache import put
from tests.fakes.folders import write_pair
from tests.paths import GOLDEN

Shell = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path))
    (tmp_path / "config").mkdir()
    return tmp_path


def write(text: str) -> None:
    places.config_file().write_text(text, encoding="utf-8")


def as_json(capsys: Shell, *arguments: str) -> dict[str, dict[str, object]]:
    assert main(["settings", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)["settings"]  # type: ignore[no-any-return]


def test_what_holds_and_where_it_comes_from(capsys: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    write("temp: 0.5\nseed: 3\nmin_p: 0.1\nbogus: 1\n")
    monkeypatch.setenv("SLIPSTREAM_SEED", "4")
    monkeypatch.setenv("SLIPSTREAM_MIN_P", "0.2")
    RememberedChoices.read(places.state_file()).remember(theme="nord")
    assert main(["settings", "--min-p", "0.3"]) == 0
    said = {
        line.split(" ")[0]: " ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines() if line
    }
    assert said["temp"] == "0.5 config.yaml, line 1"
    assert said["seed"] == "4 SLIPSTREAM_SEED"
    assert said["min_p"] == "0.3 --min-p"
    assert said["theme"] == "nord chosen in the chat"
    assert said["top_k"] == "set by the model default"
    assert any("'bogus' is not a setting" in f"{name} {rest}" for name, rest in said.items())
    found = as_json(capsys, "--no-think", "--draft", "off")
    assert found["draft"] == {
        "value": 0,
        "from": "--draft",
        "default": "auto",
        "allowed": "auto, off or 1 to 16",
        "variable": "SLIPSTREAM_DRAFT",
        "flag": "--draft",
    }
    assert (found["think"]["value"], found["think"]["from"]) == (False, "--no-think")


def test_the_example_makes_a_file(capsys: Shell) -> None:
    assert main(["settings"]) == 0
    assert "--example" in capsys.readouterr().out
    assert main(["settings", "--example"]) == 0
    write(capsys.readouterr().out)
    assert main(["settings"]) == 0
    assert "--example" not in capsys.readouterr().out


def test_paths_lists_the_files(capsys: Shell) -> None:
    assert main(["paths"]) == 0
    said = capsys.readouterr().out
    assert str(places.config_file()) in said
    assert str(places.state_file()) in said


def test_paths_for_programs(capsys: Shell) -> None:
    assert main(["paths", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == str(places.config_file())


def test_the_help_of_all_names_the_flags_of_the_chat(capsys: Shell) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    for flag in ("--continue", "--plain", "--model", "slipstream chat --help"):
        assert flag in said


def test_a_long_value_is_shown_whole(capsys: Shell) -> None:
    path = "/volumes/models/" + "x" * 60
    assert main(["settings", "--model", path]) == 0
    model, source, *_ = capsys.readouterr().out.split("\nmodel ")[1].splitlines()
    assert (model.strip(), source.strip()) == (path, "--model")


@pytest.mark.parametrize("command", [["settings"], ["run", "Hi"]])
def test_a_file_that_cannot_be_used_is_one_sentence_each(command: list[str], capsys: Shell) -> None:
    write("temp: hot\ndraft: 99\n")
    assert main(command) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"slipstream: {places.config_file()}, line 1: temp is 'hot'.")
    assert said[1].startswith(f"{places.config_file()}, line 2: draft is '99'.")


def test_other_commands_do_not_need_the_file(capsys: Shell) -> None:
    write("temp: hot\n")
    assert main(["paths"]) == 0
    assert main(["chats", "list"]) == 0


@pytest.mark.parametrize("command", ["chats", "models"])
def test_a_command_alone_lists_what_there_is(command: str, capsys: Shell) -> None:
    assert main([command, "list"]) == 0
    listed = capsys.readouterr().out
    assert main([command]) == 0
    assert capsys.readouterr().out == listed


@pytest.mark.parametrize(
    ("flags", "words"), [(["--temp", "hot"], "a number from 0 to 100"), (["--draft-start", "0"], "from 1 to 16")]
)
def test_a_flag_that_cannot_be_used_says_what_can(flags: list[str], words: str, capsys: Shell) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", *flags, "Hi"])
    assert words in capsys.readouterr().err


def test_settings_become_what_a_chat_starts_with(home: Path) -> None:
    write("temp: 0.5\nrule: coupled\nsystem: Be brief.\nthink: on\ndraft: 3\nmax_tokens: 9\nkeys: {draft: f9}\n")
    effective = read_settings({"seed": 7, "system": ""})
    options = reply_options_of(effective.settings)
    assert options.sampling == SamplingOptions(temperature=0.5, rule="coupled", seed=7)
    assert (options.draft_length, options.max_tokens, options.is_thinking, options.system) == (3, 9, True, None)
    assert effective.settings.keys == {"draft": "f9"}


def test_the_model_chosen_last_is_the_one_to_begin_with(home: Path) -> None:
    target, _ = write_pair(home)
    effective = read_settings(remembered={"model": str(target)})
    pair, notice = first_pair(effective, PairOptions())
    assert (pair.load.target, notice) == (str(target.resolve()), "")


def test_a_chosen_model_that_has_gone_is_told_and_the_pocket_pair_comes(home: Path) -> None:
    for gone in (str(home / "gone"), "e4b", "no-such-name"):
        pair, notice = first_pair(read_settings(remembered={"model": gone}), PairOptions())
        assert pair.is_pocket
        assert "Using the pocket model instead" in notice
        with pytest.raises(SlipstreamError):
            first_pair(read_settings({"model": gone}), PairOptions())


@pytest.mark.parametrize(
    ("command", "task"), [(["run", "Hi"], "app.shell.run.run_once"), (["bench"], "app.bench.measuring.measure")]
)
def test_one_reply_and_the_bench_take_the_model_chosen_last_as_well(
    command: list[str], task: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Shell
) -> None:
    loaded: list[str] = []

    def engine(load: Load, log: Path) -> None:
        loaded.append(load.target)

    for module in ("app.core.engines",):
        monkeypatch.setattr(f"{module}.EngineClient", engine)
    monkeypatch.setattr(task, lambda *arguments, **options: 0)
    target, _ = write_pair(home)
    RememberedChoices.read(places.state_file()).remember(model=str(target))
    assert main(command) == 0
    write("model: pocket\n")
    assert main(command) == 0
    assert loaded == [str(target.resolve()), str(TARGET_FOLDER.resolve())]


def test_models_of_the_hub_are_called_by_their_repositories(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    target, assistant = write_pair(home)
    snapshot = put(home / "hub", "me/tiny-it", target)
    put(home / "hub", "me/tiny-it-assistant", assistant)
    for model in ("me/tiny-it", str(snapshot)):
        pair = choose_pair(model, PairOptions())
        assert pair.title == "me/tiny-it"
        assert names_of(pair.load) == ("me/tiny-it", "me/tiny-it-assistant", "lookup")
    monkeypatch.setattr(pair_choice, "read_machine", lambda: small_machine(0.5))
    with pytest.raises(SlipstreamError, match="me/tiny-it needs"):
        choose_pair("me/tiny-it", PairOptions())
    assert names_of(choose_pair(None, PairOptions()).load) == ("pocket", "pocket-drafter", "lookup")
    for drafter, names in (
        ("none", ()),
        ("lookup", ("lookup",)),
        ("assistant", ("pocket-drafter",)),
        ("lookup, assistant", ("pocket-drafter", "lookup")),
    ):
        assert names_of(choose_pair(None, PairOptions(drafter)).load) == ("pocket", *names)


def names_of(load: Load) -> tuple[str, ...]:
    return (load.name, *map(load.drafter_name, load.drafters))


def small_machine(gigabytes: float) -> Machine:
    size_bytes = int(gigabytes * 1e9)
    return Machine("M1", size_bytes, size_bytes * 2 // 3, False, size_bytes)


def test_a_model_without_room_is_refused_with_both_numbers(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Shell
) -> None:
    target, _ = write_pair(home)
    monkeypatch.setattr(pair_choice, "read_machine", lambda: small_machine(0.5))
    with pytest.raises(SlipstreamError, match=r"needs .+ MB of memory, but this machine has room for 375 MB"):
        choose_pair(str(target), PairOptions())
    assert choose_pair(str(target), PairOptions(is_oversized=True)).load.target == str(target.resolve())
    assert choose_pair(None, PairOptions()).is_pocket, "which always has room"
    pair, notice = first_pair(read_settings(remembered={"model": str(target)}), PairOptions())
    assert pair.is_pocket
    assert "Using the pocket model instead" in notice
    assert main(["run", "--model", str(target), "Hi"]) == FAILED
    assert "--oversized" in capsys.readouterr().err


def test_a_drafter_that_does_not_fit_beside_the_model_is_left_out_with_that_reason(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, assistant = write_pair(home)
    real, both = memory_fit.fit, 0

    def fit(pair: PairSize, *arguments: object, **named: object) -> Fit:
        nonlocal both
        both += bool(pair.drafter_bytes)
        return replace(real(pair, *arguments, **named), largest_context_tokens=0 if pair.drafter_bytes else 4096)  # type: ignore[arg-type]

    monkeypatch.setattr(pair_choice, "fit", fit)
    load = choose_pair(str(target), PairOptions(str(assistant))).load
    assert both
    assert load.drafters == ()
    assert "left out: both together need" in str(load.refusal)
    assert choose_pair(str(target), PairOptions(str(assistant), is_oversized=True)).load.drafters


BLOCK_TARGET = GOLDEN / "drafters" / "target-12b"
BLOCK, EAGLE = GOLDEN / "drafters" / "dspark-12b", GOLDEN / "drafters" / "eagle3-llama"


def test_of_several_drafters_the_first_ones_that_fit_are_loaded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = memory_fit.fit
    one_bytes = memory_fit.size_of_folders(BLOCK_TARGET, BLOCK).drafter_bytes or 0

    def fit(pair: PairSize, *arguments: object, **named: object) -> Fit:
        context_tokens = 0 if (pair.drafter_bytes or 0) > one_bytes else 4096
        return replace(real(pair, *arguments, **named), largest_context_tokens=context_tokens)  # type: ignore[arg-type]

    monkeypatch.setattr(pair_choice, "fit", fit)
    load = choose_pair(str(BLOCK_TARGET), PairOptions(f"{BLOCK},{EAGLE},lookup")).load
    assert load.drafters == (str(BLOCK), LOOKUP)
    assert "The drafter eagle3-llama is left out: all together need" in str(load.refusal)


def test_a_wrong_drafter_among_several_is_named_with_both_numbers_and_the_others_stay(home: Path) -> None:
    wrong = GOLDEN / "e2b" / "assistant"
    load = choose_pair(str(BLOCK_TARGET), PairOptions(f"{BLOCK},{wrong},lookup")).load
    assert load.drafters == (str(BLOCK), LOOKUP)
    assert choose_pair(str(BLOCK_TARGET), PairOptions(f"{wrong},lookup")).load.drafters == (LOOKUP,)
    assert f"{wrong} was made for a target with a hidden size of 32; {BLOCK_TARGET} has 72" in str(load.refusal)


def test_the_next_smaller_model_is_known_for_when_memory_runs_out(home: Path) -> None:
    catalog = load_catalog()
    sizes = {name: entry.target.size_bytes or 0 for name, entry in catalog.entries.items() if entry.target.repo}
    smaller = catalog.next_smaller(sizes["31b-4bit"])
    assert smaller is not None
    assert sizes[smaller] == max(size for size in sizes.values() if size < sizes["31b-4bit"])
    assert catalog.next_smaller(1000) is None
    assert choose_pair(str(write_pair(home)[0]), PairOptions()).load.smaller is None, "smaller than all of them"


def test_what_fits_with_a_short_conversation_is_not_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, _ = write_pair(home)
    monkeypatch.setattr(pair_choice, "read_machine", lambda: small_machine(8))
    assert choose_pair(str(target), PairOptions()).load.target == str(target.resolve())


def test_what_is_set_about_a_pair_reaches_the_engine() -> None:
    settings = Settings(
        drafter="lookup",
        drafter_bits=4,
        drafter_vocabulary=32768,
        draft_start=3,
        compile=True,
        wire=True,
        float32=False,
        prefill_chunk=700,
        chat_memory=1.5,
    )
    load = choose_pair(None, pair_options_of(settings)).load
    assert (load.drafters, load.drafter_bits, load.start_length) == ((LOOKUP,), 4, 3)
    assert load.drafter_vocabulary == 32768
    assert load.is_compiled
    assert load.is_wired
    assert (load.is_float32, load.prefill_chunk, load.conversation_bytes) == (False, 700, 1_500_000_000)
    assert choose_pair(None, pair_options_of(Settings())).load.prefill_chunk is None
