"""Two processes with the same chat open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from app.system.open_chat import OpenChatMark
from tests.paths import ROOT

TRY = """
import sys
from pathlib import Path
from app.system.open_chat import OpenChatMark
print(OpenChatMark(Path(sys.argv[1])).move(7))
"""


def is_free(path: Path) -> bool:
    """Whether another process can mark chat 7."""
    run = subprocess.run([sys.executable, "-c", TRY, str(path)], cwd=ROOT, capture_output=True, check=True)
    return run.stdout.split() == [b"True"]


def test_a_chat_is_marked_by_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "made" / "open"
    mark = OpenChatMark(path)
    assert mark.move(7)
    assert mark.move(7)
    assert not is_free(path)
    assert mark.move(8)
    assert is_free(path)
    assert mark.move(7)
    mark.close()
    assert is_free(path)


def test_without_a_file_nothing_is_marked() -> None:
    mark = OpenChatMark(None)
    assert mark.move(7)
    assert mark.move(None)
    mark.close()


VISIT = """
import sys
from pathlib import Path
from app.system.open_chat import OpenChatMark
mark = OpenChatMark(Path(sys.argv[1]))
for line in sys.stdin:
    print(mark.move(eval(line)), flush=True)
"""


def test_the_first_process_learns_of_a_second_one(tmp_path: Path) -> None:
    path = tmp_path / "open"
    mark = OpenChatMark(path)
    assert mark.move(7)
    assert not mark.has_visitor
    command = [sys.executable, "-c", VISIT, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout

        def move(chat_id: int | str) -> str:
            assert other.stdin
            assert other.stdout
            other.stdin.write(f"{chat_id}\n")
            other.stdin.flush()
            return other.stdout.readline().strip()

        assert move(7) == "False"
        assert mark.has_visitor
        for other_id in ("8", "None"):
            assert move(other_id) == "True"
            assert not mark.has_visitor
            assert move(7) == "False"
            assert mark.has_visitor
        assert mark.has_visitor
        mark.move(9)
        assert move(7) == "True", "the chat is free, and the second process has it now"
        assert not mark.move(7)
        other.stdin.close()
    assert mark.move(7)
    assert not mark.has_visitor
