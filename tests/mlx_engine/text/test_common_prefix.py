from __future__ import annotations

import pytest

from mlx_engine.text.common_prefix import BLOCK, common_length


@pytest.mark.parametrize("shared", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize(("one_more", "other_more"), [(0, 0), (1, 0), (0, BLOCK), (1, 1), (BLOCK, 2 * BLOCK)])
def test_it_ends_where_sequences_differ(shared: int, one_more: int, other_more: int) -> None:
    one, other = list(range(shared)) + [-1] * one_more, list(range(shared)) + [-2] * other_more

    assert common_length(one, other) == shared
    assert common_length(tuple(one), other) == shared
    assert common_length(
        "".join(chr(1000 + each) for each in one), "".join(chr(1000 + each) for each in other)
    ) == (shared)
