"""Messages over a pipe come out as they went in, and anything else is refused."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_engine.protocol import events, wire


@given(st.text(), st.lists(st.integers(0, 2**31)), st.floats(0, 1e6))
def test_a_round_comes_out_as_it_went_in(text: str, ids: list[int], seconds: float) -> None:
    sent = events.Round(
        tuple(ids), 4, 2, True, 10,
        id=1, text=text, thinking=text[::-1], round_s=seconds, memory_bytes=2**40, elapsed_s=seconds,
    )  # fmt: skip
    pipe = BytesIO()
    wire.write(pipe, sent)
    wire.write(pipe, events.Failed(None, text))
    pipe.seek(0)
    assert wire.read(pipe, events.Event) == sent
    assert wire.read(pipe, events.Event) == events.Failed(None, text)
    assert wire.read(pipe, events.Event) is None


@given(st.text())
def test_tools_and_schemas_come_out_as_they_went_in(text: str) -> None:
    """Numbers of any size too: they cross as JSON text."""
    huge = '{"n": ' + "9" * 60 + "}"
    call = events.ToolCall(text, huge, "1")
    messages = (events.Message("assistant", text, text, (call,)), events.Message("tool", text, call_id="1"))
    sent = events.Generate(1, messages, tools=(events.Tool(text, text, huge),), schema=huge)
    pipe = BytesIO()
    wire.write(pipe, sent)
    pipe.seek(0)
    assert wire.read(pipe, events.Command) == sent


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\0\0\0\x05{}",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x02{}",
        b'\0\0\0\x10{"type":"nobody"}'[:20],
        b"\0\0\0\x04\xff\xfe\0\0",
        b"\0\0\xa0\0" + b"[" * 0xA000,
    ],
)
def test_what_is_not_a_message_is_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.read(BytesIO(data), events.Event)
