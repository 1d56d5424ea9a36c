"""Makes the pocket pair again: `python -m models.pocket.training.train`.

Three stages, each left out if its result is there: tokenizer, target, assistant; a fourth with `--dspark`.
Interrupted stages go on from their last checkpoint. On Linux give MLX a fast BLAS (LD_PRELOAD=.../libblas.so.3 of
OpenBLAS), or it takes many times as long.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from models import pocket
from models.pocket.training.lessons import load_corpus
from models.pocket.training.tokenizer import write_tokenizer
from models.pocket.training.train_assistant import train_assistant
from models.pocket.training.train_dspark import train_dspark
from models.pocket.training.train_target import train_target

WORK = Path.home() / ".cache" / "slipstream-pocket"
MALLOC_SETTINGS = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
"""Keeps glibc from returning every array's memory to the kernel, which would have to clear it again."""


def train(
    target: Path,
    drafter: Path,
    work: Path,
    is_fresh: bool = False,
    has_copying: bool = False,
    dspark: Path | None = None,
) -> None:
    """Run the stages that are not done yet; all of them if `is_fresh`. dspark: where a DSpark drafter goes."""
    if is_fresh:
        for folder in (target, drafter, work):
            shutil.rmtree(folder, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    os.environ.update({name: os.environ.get(name, value) for name, value in MALLOC_SETTINGS.items()})
    if not (target / "tokenizer.json").exists():
        write_tokenizer(load_corpus().texts(), target)
    if not (target / "model.safetensors").exists():
        train_target(target, work, has_copying)
    if not (drafter / "model.safetensors").exists():
        train_assistant(target, drafter, work)
    if dspark and not (dspark / "model.safetensors").exists():
        train_dspark(target, dspark, work)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=pocket.TARGET_FOLDER, help="where the target goes")
    parser.add_argument("--drafter", type=Path, default=pocket.DRAFTER_FOLDER, help="where the assistant goes")
    parser.add_argument("--work", type=Path, default=WORK, help="where checkpoints go")
    parser.add_argument("--copying", action="store_true", help="teach copying as well, which costs other answers")
    parser.add_argument("--dspark", type=Path, help="train a DSpark drafter as well, which goes here")
    parser.add_argument("--fresh", action="store_true", help="begin again, deleting what is there")
    arguments = parser.parse_args()
    train(
        arguments.target,
        arguments.drafter,
        arguments.work,
        arguments.fresh,
        arguments.copying,
        arguments.dspark,
    )


if __name__ == "__main__":
    main()
