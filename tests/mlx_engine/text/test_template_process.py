"""A template's process: what does not come back is ended, and the next conversation is rendered."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlx_engine.text.sandbox import Limits, TemplateFailedError
from mlx_engine.text.template_process import TemplateProcess
from tests.patience import PATIENCE_S

MESSAGES = [{"role": "user", "content": "Hello"}]
LOOP = "{% for a in range(n) %}{% for b in range(1000) %}{% endfor %}{% endfor %}done"
SOON = Limits(time_s=60.0, grace_s=-59.9)
"""The kernel ends the process after a tenth of a second, long before the sandbox looks at its clock."""


def is_running(process_id: int) -> bool:
    """A process that has ended counts as such even where nobody asks how it ended."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process_id}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_it_renders_as_in_this_process() -> None:
    process = TemplateProcess("{% for m in messages %}{{ m.role }}: {{ m.content }} {{ word }}{% endfor %}")
    for word in ("one", "two 🙂"):
        assert process.render(MESSAGES, word=word) == f"user: Hello {word}"


def test_a_template_that_cannot_be_compiled_is_refused_each_time() -> None:
    process = TemplateProcess("{% for %}")
    for _ in range(2):
        with pytest.raises(TemplateFailedError, match="Expected an expression"):
            process.check()
    assert process.process_id is None


def test_a_template_that_fails_keeps_its_process() -> None:
    process = TemplateProcess("{{ raise_exception('no ' ~ messages[0].content) }}")
    process.check()
    before = process.process_id
    for _ in range(2):
        with pytest.raises(TemplateFailedError, match="no Hello"):
            process.render(MESSAGES)
    assert process.process_id == before


@pytest.mark.parametrize("source", ["{{ '\\ud800' }}", "{{ raise_exception('\\ud800') }}"])
def test_text_that_is_no_unicode_is_refused(source: str) -> None:
    with pytest.raises(TemplateFailedError):
        TemplateProcess(source).render(MESSAGES)


def test_a_template_that_does_not_come_back_is_ended_and_the_next_render_works() -> None:
    process = TemplateProcess(LOOP, SOON)
    process.check()
    before = process.process_id
    assert before
    with pytest.raises(TemplateFailedError, match="longer than 60 seconds"):
        process.render(MESSAGES, n=99_999)
    assert not is_running(before)
    assert process.render(MESSAGES, n=1) == "done"
    assert process.process_id != before


def test_its_own_limit_comes_first() -> None:
    process = TemplateProcess(LOOP, Limits(time_s=0.05, more_per_message_s=0))
    with pytest.raises(TemplateFailedError, match=r"it takes longer than 0 seconds$"):
        process.render(MESSAGES, n=99_999)


def test_a_process_that_is_stopped_is_killed() -> None:
    process = TemplateProcess(LOOP, Limits(time_s=0.01))
    process.check()
    process._patience_s = 0.05
    stopped = process.process_id
    assert stopped
    os.kill(stopped, signal.SIGSTOP)  # without a limit of processor time that could end it
    with pytest.raises(TemplateFailedError, match="too much memory"):
        process.render([], n=1)
    assert not is_running(stopped)


def test_a_process_that_was_killed_from_outside_costs_one_conversation() -> None:
    process = TemplateProcess(LOOP)
    process.check()
    assert process.process_id
    os.kill(process.process_id, signal.SIGTERM)
    with pytest.raises(TemplateFailedError, match="ended with status -15"):
        process.render(MESSAGES, n=1)
    assert process.render(MESSAGES, n=1) == "done"


def test_it_ends_with_the_template() -> None:
    process = TemplateProcess(LOOP)
    process.check()
    id = process.process_id
    assert id
    del process
    gc.collect()
    assert not is_running(id)


def test_a_busy_process_whose_engine_is_gone_ends_by_itself() -> None:
    code = (
        "import sys\n"
        "from mlx_engine.protocol import wire\n"
        "from mlx_engine.text.sandbox import Limits\n"
        "from mlx_engine.text.template_process import TemplateProcess\n"
        "from mlx_engine.text.template_worker import Render\n"
        f"process = TemplateProcess({LOOP!r}, Limits(time_s=60.0, grace_s=-59.5))\n"
        "process.check()\n"
        "process._send(Render([], {'n': 99_999}, 0.0))\n"
        "print(process.process_id, flush=True)\n"
        "import os; os._exit(0)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    id = int(run.stdout)
    deadline = time.monotonic() + PATIENCE_S
    while is_running(id):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_its_process_brings_in_neither_mlx_nor_a_tokenizer() -> None:
    code = "import sys, mlx_engine.text.template_worker; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"mlx", "mlx.core", "tokenizers", "numpy", "asyncio"} & set(run.stdout.split())
