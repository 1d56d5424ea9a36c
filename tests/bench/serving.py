"""`python -m tests.bench.serving`: our server beside those of mlx-lm and mlx-vlm, in turn.

    python -m tests.bench.serving --mlx-lm .../bin/python --mlx-vlm .../bin/python --openblas

Every server answers a request before the next request is sent, and who comes first changes. Ratios are to the
better peer. Processor time is that of a server's processes; on a machine that does other things it says more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from tests.bench.environment import OPENBLAS, versions
from tests.bench.pairs import PairFolders
from tests.bench.served_pair import SERVED, THIN, write_served_pair
from tests.bench.servers import (
    AS_SHIPPED,
    MLX_LM,
    MLX_VLM,
    OURS,
    BenchServer,
    mlx_lm_command,
    mlx_vlm_command,
    our_command,
)
from tests.bench.serving_rows import beside_run, callers, many, schema, session
from tests.bench.sides import SideError
from tests.bench.table import Figure, markdown

Row = Callable[[list[BenchServer], argparse.Namespace, PairFolders], Iterator[Figure]]
ROWS: dict[str, Row] = {
    "session": session,
    "callers": callers,
    "run": beside_run,
    "schema": schema,
    "many": many,
}


def main() -> int:
    """Measure and print; 0 if every bar is met, 1 if one is missed or could not be measured."""
    options = _options()
    figures: list[Figure] = []
    failed = False
    for python in {options.mlx_lm, options.mlx_vlm} - {None}:
        print(f"{python}: {versions(python)}", flush=True)
    for name in options.pairs:
        with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
            pair = write_served_pair(name, Path(place))
            try:
                servers = [stack.enter_context(closing(server)) for server in _started(pair, Path(place), options)]
                for server in servers:
                    server.wait_until_ready()
                for row in options.rows:
                    for figure in ROWS[row](servers, options, pair):
                        figures.append(figure)
                        print(markdown([figure]).splitlines()[-1], flush=True)
            except SideError as error:
                failed = True
                print(f"{name}: {error}", file=sys.stderr, flush=True)
    print("\n" + markdown(figures))
    return 1 if failed or any(each.is_met is False for each in figures) else 0


def _started(pair: PairFolders, home: Path, options: argparse.Namespace) -> Iterator[BenchServer]:
    ours = our_command(pair, ("--compile", "on") if options.compile else ())
    yield BenchServer(OURS, ours, pair.target.name, home, options.openblas)
    peers = [(MLX_LM, options.mlx_lm, mlx_lm_command), (MLX_VLM, options.mlx_vlm, mlx_vlm_command)]
    if options.as_shipped:
        peers.append((AS_SHIPPED, options.mlx_vlm, mlx_vlm_command))
    for name, python, command in peers:
        if python is None:
            print(f"{name} is left out: its Python was not named", file=sys.stderr)
        else:
            yield BenchServer(name, command(python, pair), str(pair.target), home, options.openblas)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in (MLX_LM, MLX_VLM):
        parser.add_argument(
            f"--{name}", type=Path, metavar="PYTHON", help="of an environment that has it; else it is left out"
        )
    parser.add_argument("--pairs", nargs="+", choices=SERVED, default=[THIN])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--system", type=int, default=15_000, metavar="CHARACTERS", help="of the session's system text"
    )
    parser.add_argument("--tokens", type=int, default=24, help="of each answer in sessions, at most")
    parser.add_argument("--requests", type=int, default=1000, help="of the row many")
    parser.add_argument(
        "--as-shipped", action="store_true", help="mlx-vlm a second time, without its cache of prefixes"
    )
    parser.add_argument("--compile", action="store_true", help="our setting of that name, as with Metal")
    parser.add_argument(
        "--openblas", type=Path, nargs="?", const=OPENBLAS, help=f"in place of MLX's own (default: {OPENBLAS})"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
