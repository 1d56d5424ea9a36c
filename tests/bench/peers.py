"""`python -m tests.bench.peers`: Slipstream, mlx-lm and mlx-vlm on the same pairs, side by side.

Builds an environment with the peers, loads each pair on all sides, and measures in turn. Ctrl+C ends it with
what there is.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.bench_of_pair import PairBench
from tests.bench.environment import OPENBLAS, cache_folder, peers_python, versions
from tests.bench.measure import Effort
from tests.bench.pairs import NAMES, find_pair
from tests.bench.rows import ROWS
from tests.bench.sides import SideError
from tests.bench.table import Figure, markdown, write_json


def main() -> int:
    """Measure and print; 0 if every bar is met, 1 if one is missed or could not be measured."""
    options = _options()
    python = peers_python(options.env)
    machine = {
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "peers": versions(python),
        "compiled": {None: "compiled if Metal", True: "compiled", False: "not compiled"}[options.compile],
        "clock": "processor time" if options.processor_time else "time",
    }
    print(" · ".join(machine.values()), flush=True)
    figures: list[Figure] = []
    failed = False
    try:
        for figure in _measure(options, python):
            if isinstance(figure, str):
                failed = True
                print(figure, file=sys.stderr, flush=True)
                continue
            figures.append(figure)
            print(markdown([figure]).splitlines()[-1], flush=True)
            if options.json:
                write_json(options.json, machine, figures)
    except KeyboardInterrupt:
        failed = True
        print("\ninterrupted; what was measured:", file=sys.stderr)
    print("\n" + markdown(figures))
    return 1 if failed or any(each.is_met is False for each in figures) else 0


def _measure(options: argparse.Namespace, python: Path) -> Iterator[Figure | str]:
    """Figures as they come, or a sentence where one could not be measured."""
    modes = [None, options.openblas] if options.openblas else [None]
    if options.only_openblas:
        modes = modes[1:]
    row_s = 60 * options.minutes / (len(modes) * len(options.pairs) * len(options.rows))
    effort = Effort(repeats=5, row_s=row_s, replies=6, tokens=72, looks=3, learning_rounds=200, of_a_kind=24)
    if options.quick:
        effort = Effort(repeats=1, row_s=0, replies=1, tokens=24, looks=1, learning_rounds=1, of_a_kind=1)
    for name in options.pairs:
        pair = find_pair(name, options.quick)
        for openblas in modes:
            try:
                bench = PairBench(pair, openblas, python, options.processor_time, options.compile, options.before)
            except SideError as error:
                yield f"{name} could not be loaded: {error}"
                continue
            try:
                for row in options.rows:
                    yield from ROWS[row](bench, effort)
            except SideError as error:
                yield f"{name}, {bench.blas}: {error}"
            finally:
                bench.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument(
        "--env",
        type=Path,
        default=cache_folder() / "venv",
        help="the peers' environment; built if it is not there",
    )
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file as well")
    parser.add_argument(
        "--openblas",
        type=Path,
        nargs="?",
        const=OPENBLAS,
        help=f"measure a second time with this libblas.so.3 in place of MLX's own (default: {OPENBLAS})",
    )
    parser.add_argument("--only-openblas", action="store_true", help="leave out MLX's own BLAS")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument(
        "--pairs", nargs="+", choices=NAMES, default=list(NAMES), metavar="PAIR", help=", ".join(NAMES)
    )
    parser.add_argument(
        "--minutes", type=float, default=60, help="for all repeats together, roughly (default: 60)"
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count processor time instead of time: for a machine that is busy with other things",
    )
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="as Slipstream's setting of that name (default: with Metal)",
    )
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="of an earlier commit, for the row of that name"
    )
    parser.add_argument("--quick", action="store_true", help="each thing once and tiny pairs: does the tool work?")
    options = parser.parse_args()
    if options.only_openblas and not options.openblas:
        parser.error("--only-openblas needs --openblas")
    if options.openblas and not options.openblas.is_file():
        parser.error(f"{options.openblas} is not there. On Debian: apt install libopenblas0-pthread")
    return options


if __name__ == "__main__":
    sys.exit(main())
