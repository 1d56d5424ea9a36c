"""Dependencies point down, shown in a fresh interpreter as well as by the import contracts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

TOP_LEVEL = {"pyproject.toml", "app", "mlx_engine", "models", "tests", "findings", "README.md", "LICENSE"}
NEVER_IN_THE_APP = {"mlx", "mlx_lm", "transformers", "tokenizers", "huggingface_hub", "importlib.metadata"}


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        ("app.cli, app.plain.chat, app.shell.run, app.shell.bench", {"textual", *NEVER_IN_THE_APP}),
        ("app.tui.chat_app", NEVER_IN_THE_APP),
        ("mlx_engine.client, mlx_engine.protocol.events, mlx_engine.protocol.stats", {"mlx", "textual"}),
        ("mlx_engine.worker", {"textual", "app", "models", "transformers"}),
        ("models.folders, models.verify, models.pull", {"mlx", "tokenizers", "huggingface_hub", "app", "textual"}),
    ],
)
def test_a_fresh_interpreter_brings_in_only_what_it_may(imported: str, absent: set[str]) -> None:
    code = f"import sys, {imported}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not absent & set(run.stdout.split())


def test_models_know_the_engines_files_errors_and_prefill_chunks_alone() -> None:
    modules = [path.stem for path in (ROOT / "models").glob("*.py") if path.stem != "__init__"]
    code = f"import sys; from models import pocket, {', '.join(modules)}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    engine = {name for name in run.stdout.split() if name.startswith("mlx_engine.")}
    allowed = {"mlx_engine.protocol", "mlx_engine.protocol.errors", "mlx_engine.protocol.prefill_chunk"}
    assert {name for name in engine if not name.startswith("mlx_engine.files")} == allowed


def test_the_engine_starts_where_the_limit_on_open_files_is_low_and_leaves_it_alone() -> None:
    # What mlx-lm's package does when it is imported: set a limit that may be above the one that holds.
    code = "import resource; resource.setrlimit = lambda *limits: 1 / 0; import mlx_engine.worker"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_top_level_stays_as_designed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_nothing_trusts_code_from_a_model_folder() -> None:
    paths = [path for folder in ("app", "mlx_engine", "models") for path in (ROOT / folder).rglob("*.py")]
    shipped = [path.read_text() for path in paths if "training" not in path.parts]
    assert not any("trust_remote_code" in text or "pickle" in text for text in shipped)
    assert sum(text.count("mx.load(") for text in shipped) == 1


def test_the_wheel_carries_the_code_and_the_pocket_pair_and_nothing_else() -> None:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    paths = {Path(file.distribution_path) for file in builder.recurse_included_files()}
    code = {
        path.relative_to(ROOT)
        for folder in ("app", "mlx_engine", "models")
        for path in (ROOT / folder).rglob("*.py")
    }
    training = {path for path in code if path.is_relative_to("models/pocket/training")}
    assert training
    assert {path for path in paths if path.suffix == ".py"} == code - training
    assert {str(path) for path in paths if path.suffix != ".py"} == {
        "app/bench/data/pocket.yaml",
        "app/bench/data/prompts.yaml",
        "app/py.typed",
        "app/tui/chat_app.tcss",
        "mlx_engine/py.typed",
        "models/catalog.yaml",
        "models/pocket/drafter/config.json",
        "models/pocket/drafter/model.safetensors",
        "models/pocket/target/chat_template.jinja",
        "models/pocket/target/config.json",
        "models/pocket/target/generation_config.json",
        "models/pocket/target/model.safetensors",
        "models/pocket/target/tokenizer.json",
        "models/pocket/target/tokenizer_config.json",
        "models/pocket/tools.json",
        "models/py.typed",
    }
