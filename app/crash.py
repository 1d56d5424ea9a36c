"""What a crash says: one sentence on the terminal, the traceback without any variables in the log."""

from __future__ import annotations

import traceback
from datetime import datetime
from pathlib import Path


def write_crash(error: BaseException, log_path: Path | None) -> str:
    """Append the traceback to the log; returns the sentence for the person. Never raises."""
    kind = type(error).__name__
    if log_path is None:
        return f"Slipstream ended because of an error in itself ({kind})."
    lines = traceback.format_exception(error)
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log_path.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"{datetime.now().isoformat(timespec='seconds')} crash of the chat\n{''.join(lines)}\n")
    except OSError as problem:
        return f"Slipstream ended because of an error in itself ({kind}); the log could not be written: {problem}"
    return f"Slipstream ended because of an error in itself ({kind}). Details are in {log_path}"
