"""What a crash says: one sentence on the terminal; in the log where it happened, without variables or words."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from mlx_engine.protocol.log_file import Log, trace


def write_crash(error: BaseException, log_path: Path | None) -> str:
    """Append the traceback to the log; returns the sentence for the person. Never raises."""
    kind = type(error).__name__
    if log_path is None:
        return f"Slipstream ended because of an error in itself ({kind})."
    said = f"{datetime.now().isoformat(timespec='seconds')} crash of the chat\n{trace(error)}\n"
    try:
        log = Log(log_path)
        log.write(said.encode())
        log.close()
    except OSError as problem:
        return f"Slipstream ended because of an error in itself ({kind}); the log could not be written: {problem}."
    return f"Slipstream ended because of an error in itself ({kind}). Details are in {log_path}"
