"""The front end: the chat, and everything that `slipstream` does in the shell."""

__version__ = "0.1.0"
