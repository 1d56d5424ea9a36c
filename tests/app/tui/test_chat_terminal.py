"""The chat in a real terminal: how it leaves it, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.tui.terminal.safe_app import SafeApp
from tests.app.tui.terminal import Terminal
from tests.paths import ROOT
from tests.patience import PATIENCE_S

CHILD = """
import sys
from pathlib import Path
from app.tui.chat_app import ChatApp
from app.core.chat_options import ChatOptions
from app.store.chat_store import ChatStore
from tests.app.tui.pilot import PAIR, choose
from tests.fakes.engine import FakeEngine

class Chat(ChatApp):
    def on_ready(self):
        if sys.argv[2] == "crash":
            self.set_timer(0.2, self.fail)

    def fail(self):
        typed = "SECRET" + "-PROMPT"
        raise KeyError(typed)

engine = FakeEngine()
store = ChatStore.open(Path(sys.argv[1]).with_name("chats.db"))
chat = Chat(engine, PAIR, choose, ChatOptions(log_path=Path(sys.argv[1])), store)
engine.start()
chat.run()
sys.exit(chat.return_code)
"""
LEAVES_ALTERNATE_SCREEN = b"\x1b[?1049l"
LEAVES_MOUSE = b"\x1b[?1000l"


def run(
    log: Path, what: str, *, send: signal.Signals | None = None, environment: dict[str, str]
) -> tuple[int, bytes]:
    """Run the chat under a terminal of its own; its exit code and everything it wrote."""
    script = log.parent / "chat_child.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(CHILD)
    own = {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment}
    terminal = Terminal([sys.executable, str(script), str(log), what], (80, 24), {**os.environ, **own})
    try:
        if send:
            terminal.until("gemma-4-e2b")
            terminal.until("ready")
            terminal.send(send)
        return terminal.wait(), bytes(terminal.written)
    finally:
        terminal.close()


def test_a_crash_says_one_sentence_and_prints_no_variables(tmp_path: Path) -> None:
    log = tmp_path / "state" / "app.log"
    code, written = run(log, "crash", environment={})
    after = written.rpartition(LEAVES_ALTERNATE_SCREEN)[2]
    assert code == 1
    assert LEAVES_MOUSE in written
    assert b"KeyError" in after
    assert str(log.name).encode() in after.replace(b"\r\n", b"")
    assert b"NOTE" not in after
    assert b"Traceback" not in written
    assert b"SECRET" not in written
    assert "Traceback" in log.read_text()
    assert "-PROMPT" not in log.read_text().replace('"-PROMPT"', "")


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_terminal_is_restored_when_the_chat_is_ended(
    tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    code, written = run(tmp_path / "log", "wait", send=number, environment={})
    assert code == expected
    assert LEAVES_ALTERNATE_SCREEN in written
    assert LEAVES_MOUSE in written


def test_no_color_is_honoured(tmp_path: Path) -> None:
    _, written = run(tmp_path / "log", "wait", send=signal.SIGTERM, environment={"NO_COLOR": "1"})
    assert b"draft AUTO" in written
    assert b"38;" not in written
    assert b"48;" not in written


def test_a_log_on_a_full_disk_holds_nobody_up(tmp_path: Path) -> None:
    code = (
        "import os, resource, sys\n"
        "from pathlib import Path\n"
        "from app.system.crash import write_crash\n"
        "from mlx_engine.protocol.log_file import Log\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "path = Path(sys.argv[1])\n"
        "reader, writer = os.pipe()\n"
        "thread = Log(path).write_all(open(reader, 'rb'))\n"
        "with open(writer, 'wb') as pipe:\n"
        "    pipe.write(b'x' * 2_000_000)\n"
        "thread.join()\n"
        "print(write_crash(KeyError('what was typed'), path))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout
    assert (tmp_path / "log").stat().st_size == 100_000
    assert "crashed (KeyError), and the log could not be written" in said
    assert "what was typed" not in said


async def test_a_crash_in_a_worker_is_told_by_its_own_error(tmp_path: Path) -> None:
    typed = "words that were typed"

    async def fail() -> None:
        raise KeyError(typed)

    app = SafeApp(tmp_path / "log")
    with pytest.raises(KeyError):  # noqa: PT012
        async with app.run_test() as pilot:
            app.run_worker(fail())
            await pilot.pause()
    log = (tmp_path / "log").read_text()
    assert "raise KeyError(typed)" in log
    assert typed not in log
