"""The peers' own Python environment, and the two kinds of matrix products to measure with."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PEERS = ("mlx-lm==0.32.2", "mlx-vlm==0.7.10")
MLX = "mlx" if sys.platform == "darwin" else "mlx[cpu]"
OPENBLAS = Path("/usr/lib/x86_64-linux-gnu/openblas-pthread/libblas.so.3")
"""Where Debian's libopenblas0-pthread puts it."""
INSTALLED = (
    "import importlib.metadata as m; print(*(f'{n}=={m.version(n)}' for n in ('mlx-lm', 'mlx-vlm', 'mlx')))"
)


def cache_folder() -> Path:
    """Where environments and random pairs are kept from run to run."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slipstream-bench"


def peers_python(folder: Path) -> Path:
    """The interpreter of an environment with the peers in it; built if it is not there."""
    python = folder / "bin" / "python"
    if not _has_peers(python):
        print(f"building an environment with {' and '.join(PEERS)} in {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        own_mlx = f"{MLX}=={_version(Path(sys.executable), 'mlx')}"
        subprocess.run([python, "-m", "pip", "install", "--quiet", own_mlx, *PEERS], check=True)
    return python


def versions(python: Path) -> str:
    """What is measured against."""
    return subprocess.run([python, "-c", INSTALLED], check=True, capture_output=True, text=True).stdout.strip()


def child_environment(openblas: Path | None) -> dict[str, str]:
    """For a side's process: this repository on the path, no network, and OpenBLAS in place of MLX's if wanted.

    OpenBLAS gets one thread unless the caller's environment says otherwise: its threads wait by spinning, which
    on a machine that does something else besides measures little but that.
    """
    kept = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    if openblas:
        kept = {"OPENBLAS_NUM_THREADS": "1"} | kept | {"LD_PRELOAD": str(openblas)}
    return kept | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def _has_peers(python: Path) -> bool:
    if not python.exists():
        return False
    found = subprocess.run([python, "-c", INSTALLED], capture_output=True, text=True, check=False)
    return found.returncode == 0 and all(peer in found.stdout for peer in PEERS)


def _version(python: Path, package: str) -> str:
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
