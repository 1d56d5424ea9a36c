"""Which messages of a tree are shown. Plain numbers: no texts, no database.

Of siblings the one picked last is shown, so the newest, until a person walks to another; what was picked
deeper down is remembered under each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Link(NamedTuple):
    """A message as the tree sees it."""

    id: int
    parent_id: int | None
    picked: int
    """The greater, the later it was picked."""


class Tree:
    """The messages of one chat. Children are in order of id, whatever the clock said."""

    def __init__(self, links: Iterable[Link]) -> None:
        # By id alone: a damaged file may have one twice, and anything else in the other columns.
        self._links = {link.id: link for link in sorted(links, key=lambda link: link.id)}
        self._children: dict[int | None, list[Link]] = {}
        for link in self._links.values():
            self._children.setdefault(self.parent(link.id), []).append(link)

    def __iter__(self) -> Iterator[int]:
        """Every message, the oldest first."""
        return iter(self._links)

    def __contains__(self, message_id: int) -> bool:
        return message_id in self._links

    def parent(self, message_id: int) -> int | None:
        """The parent of a message; None for one at the root.

        A parent is always older, so its id is smaller. One that is not, or is missing, is the mark of a damaged
        file: such a message stands at the root, where it can be seen and no path can run in a circle.
        """
        parent_id = self._links[message_id].parent_id
        return parent_id if parent_id in self._links and parent_id is not None and parent_id < message_id else None

    def shown(self, siblings_under: int | None) -> int | None:
        """The child of `siblings_under` that is shown; None if it has none."""
        children = self._children.get(siblings_under)
        return max(children, key=lambda link: (link.picked, link.id)).id if children else None

    def path(self) -> list[int]:
        """The messages that are shown, from the first to the last."""
        path: list[int] = []
        at = self.shown(None)
        while at is not None:
            path.append(at)
            at = self.shown(at)
        return path

    def siblings(self, message_id: int) -> list[int]:
        """All that answer the same parent, oldest first, the message included."""
        return [link.id for link in self._children[self.parent(message_id)]]

    def leaves(self) -> list[int]:
        """The messages that nothing answers, each of them the end of another path; every message is on one.

        Those that have more of their path in common stand closer together, otherwise the older ones come first.
        """
        leaves: list[int] = []
        ahead: list[Link] = [*reversed(self._children.get(None, ()))]
        while ahead:
            link = ahead.pop()
            children = self._children.get(link.id, ())
            ahead += reversed(children)
            if not children:
                leaves.append(link.id)
        return leaves

    def next_pick(self, message_id: int) -> int:
        """A number greater than that of any sibling."""
        return 1 + max(link.picked for link in self._children[self.parent(message_id)])

    def lineage(self, message_id: int) -> list[int]:
        """The message and what it stands under, up to the root."""
        lineage: list[int] = []
        at: int | None = message_id
        while at is not None:
            lineage.append(at)
            at = self.parent(at)
        return lineage
