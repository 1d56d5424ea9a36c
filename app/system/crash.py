"""Reports a crash: one sentence on the terminal, and the traceback in the log, without variables or chat text."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from mlx_engine.protocol.log_file import Log, trace


def write_crash(error: BaseException, log_path: Path | None) -> str:
    """Append the traceback to the log. Returns the sentence for the person. Never raises."""
    kind = type(error).__name__
    if log_path is None:
        return f"Slipstream crashed ({kind})."
    entry = f"{datetime.now().isoformat(timespec='seconds')} crash of the chat\n{trace(error)}\n"
    try:
        log = Log(log_path)
        log.write(entry.encode())
        log.close()
    except OSError as problem:
        return f"Slipstream crashed ({kind}), and the log could not be written: {problem}."
    return f"Slipstream crashed ({kind}). Details are in {log_path}"
