"""The front end: the chat, and everything that `slipstream` does in the shell."""

import sys

__version__ = "0.1.0"

if sys.version_info < (3, 11):  # noqa: UP036 (Apple's own is 3.9, and would stop at the first newer syntax)
    raise SystemExit(
        "Slipstream needs Python 3.11 or newer, and this is Python {}.{}. Install one from python.org or with "
        "Homebrew, and install Slipstream with it in a new environment.".format(*sys.version_info)
    )
