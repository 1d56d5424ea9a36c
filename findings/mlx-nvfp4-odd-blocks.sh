#!/usr/bin/env bash
# mlx 0.32.4 on the processor: `mx.quantize(mode="nvfp4")` depends on how many rows a matrix has. Whether a width can be
# quantized is no property of the width.
#
# Expected: the documented group of nvfp4 is 16, so every width that 16 divides can be quantized, whatever the rows.
# Seen: 8 rows of 48 numbers are quantized and come back; 7 rows of 48 (an odd number of blocks in all) raise a ValueError
# about a reshape that names neither mode nor group. 7 rows of 32 come back.
# Fails if 7 rows of 48 come back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'mlx[cpu]==0.32.4'
"$folder/venv/bin/python" - <<'PYTHON'
import mlx.core as mx


def there_and_back(rows, width):
    weights = mx.random.normal((rows, width), key=mx.random.key(1))
    try:
        quantized = mx.quantize(weights, group_size=16, bits=4, mode="nvfp4")
        back = mx.dequantize(*quantized, group_size=16, bits=4, mode="nvfp4")
        mx.eval(back)
        return f"come back as {back.shape}"
    except ValueError as error:
        return f"ValueError: {error}"


for rows, width in ((7, 32), (8, 48), (7, 48)):
    print(f"{rows} rows of {width}: {there_and_back(rows, width)}")
assert there_and_back(7, 32) == "come back as (7, 32)"
assert there_and_back(8, 48) == "come back as (8, 48)"
assert "reshape" in there_and_back(7, 48), "7 rows of 48 come back now"
PYTHON
