"""Replace a file in one step: readers see the old content or the new, never a part of it."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from mlx_engine.files.flush import flush_to_disk

PRIVATE = 0o600


def replace_file(path: Path, content: bytes | str, *, mode: int = PRIVATE, is_synced: bool = True) -> None:
    """Write `content` to a temporary file beside `path`, then rename it. Text is written as UTF-8.

    mode: the permissions of the new file, whatever the umask.
    is_synced: wait until the content is on the disk, so that a power cut cannot leave an empty file.
    Raises OSError; the file at `path` is then unchanged, and the temporary one is gone.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        # Private until it is complete, and never through a file or link that somebody put there.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if mode != PRIVATE:  # some file systems know no permissions, and refuse to change them
                os.fchmod(descriptor, mode)
            if is_synced:
                flush_to_disk(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
