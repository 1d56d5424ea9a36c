"""Messages that wait become one when they are taken back."""

from __future__ import annotations

from app.core.queued_messages import QueuedMessage, joined


def test_texts_and_files_of_all_are_kept_in_order() -> None:
    messages = [
        QueuedMessage("See @a.md", ("a.md",)),
        QueuedMessage("and"),
        QueuedMessage("@b.md @c.md", ("b.md", "c.md")),
    ]
    assert joined(messages) == QueuedMessage("See @a.md\n\nand\n\n@b.md @c.md", ("a.md", "b.md", "c.md"))
