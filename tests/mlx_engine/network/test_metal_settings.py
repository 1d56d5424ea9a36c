"""What MLX's Metal backend is told by the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mlx_engine.network.metal_settings import NEVER, choose_settings


@pytest.mark.parametrize(
    ("architecture", "is_off"),
    [
        ("applegpu_g13g", True),
        ("applegpu_g13d", True),
        ("applegpu_g14s", False),
        ("applegpu_g17s", False),
        ("x86_64", False),
        (None, False),
    ],
)
def test_only_m1_goes_without_the_kernel_for_one_row_at_head_size_512(
    architecture: str | None, is_off: bool
) -> None:
    environment: dict[str, str] = {}
    choose_settings(environment, architecture)
    assert environment.get("MLX_SDPA_D512_MIN_KL") == (NEVER if is_off else None)


def test_a_persons_own_variables_apply() -> None:
    environment = {"MLX_ENABLE_TF32": "1", "MLX_SDPA_D512_MIN_KL": "0"}
    choose_settings(environment, "applegpu_g13s")
    assert environment == {"MLX_ENABLE_TF32": "1", "MLX_SDPA_D512_MIN_KL": "0"}


@pytest.mark.parametrize(("own", "applies"), [(None, "0"), ("1", "1")])
def test_float32_is_float32_in_the_engines_process(own: str | None, applies: str) -> None:
    code = "import json, os; from mlx_engine import worker; print(json.dumps(dict(os.environ)))"
    environment = {name: value for name, value in os.environ.items() if name != "MLX_ENABLE_TF32"}
    environment |= {"MLX_ENABLE_TF32": own} if own else {}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert json.loads(run.stdout)["MLX_ENABLE_TF32"] == applies
