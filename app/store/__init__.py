"""Chats on disk: a tree of messages per chat, in SQLite. Knows nothing of the screen or the engine."""
