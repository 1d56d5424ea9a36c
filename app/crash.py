"""What a crash says: one sentence on the terminal, the traceback without any variables in the log."""

from __future__ import annotations

import traceback
from datetime import datetime
from pathlib import Path

from mlx_engine.log_file import open_log


def write_crash(error: BaseException, log_path: Path | None) -> str:
    """Append the traceback to the log; returns the sentence for the person. Never raises."""
    kind = type(error).__name__
    if log_path is None:
        return f"Slipstream ended because of an error in itself ({kind})."
    lines = traceback.format_exception(error)
    try:
        with open_log(log_path) as log:
            said = f"{datetime.now().isoformat(timespec='seconds')} crash of the chat\n{''.join(lines)}\n"
            log.write(said.encode("utf-8", "backslashreplace"))
    except OSError as problem:
        return f"Slipstream ended because of an error in itself ({kind}); the log could not be written: {problem}"
    return f"Slipstream ended because of an error in itself ({kind}). Details are in {log_path}"
