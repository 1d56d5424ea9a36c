#!/usr/bin/env bash
# mlx 0.32.4 on the processor, mx.compile: a compiled function that reads an array of its surroundings is called with that
# same array as its argument. So it happens when a small network begins with the embedding table of a frozen large one,
# and a compiled training step takes the small one's parameters and uses the large one as a constant.
#
# Expected: the result that the function gives without mx.compile; an argument is an argument, whatever else holds it.
# Seen: ValueError, "uncaptured inputs". An equal array in its place is taken, and so is one array as two arguments.
# Fails if the same array is taken, or an equal one is not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'mlx[cpu]==0.32.4'
"$folder/venv/bin/python" - <<'PYTHON'
import mlx.core as mx

table = mx.arange(3.0)
mx.eval(table)


def scaled(rows):
    return rows * table


def outcome(rows):
    try:
        return mx.compile(scaled)(rows).tolist()
    except ValueError as error:
        return f"ValueError: {error}"


equal, same = outcome(mx.arange(3.0)), outcome(table)
both = mx.compile(lambda a, b: a * b)(table, table).tolist()
print(f"not compiled: {scaled(table).tolist()}")
print(f"compiled, an equal array: {equal}; the same array: {same}; one array as two arguments: {both}")
assert equal == both == scaled(table).tolist() == [0.0, 1.0, 4.0]
assert "uncaptured inputs" in str(same), "the same array is taken now"
PYTHON
