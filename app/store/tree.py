"""Decides which messages of a tree are shown, from ids and picks alone.

Of siblings, the one picked last is shown. A new message counts as picked, so the newest is shown until the person
moves to another. The picks below each sibling are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Link(NamedTuple):
    """A message as the tree sees it."""

    id: int
    parent_id: int | None
    picked: int
    """Higher: picked later."""


class Tree:
    """The messages of one chat. Children are ordered by id."""

    def __init__(self, links: Iterable[Link]) -> None:
        # Sorted by id only: a damaged file may repeat an id, and have anything in the other columns.
        self._links = {link.id: link for link in sorted(links, key=lambda link: link.id)}
        self._children: dict[int | None, list[Link]] = {}
        self._numbers: dict[int, int] = {}
        self._shown: dict[int | None, Link] = {}
        for link in self._links.values():
            parent = self.parent(link.id)
            siblings = self._children.setdefault(parent, [])
            siblings.append(link)
            self._numbers[link.id] = len(siblings)
            if link.picked >= self._shown.setdefault(parent, link).picked:
                self._shown[parent] = link

    def __iter__(self) -> Iterator[int]:
        """All message ids, oldest first."""
        return iter(self._links)

    def __contains__(self, message_id: int) -> bool:
        return message_id in self._links

    def parent(self, message_id: int) -> int | None:
        """The parent of a message; None at the root.

        A parent is always older, so its id is smaller. If it is not, or is missing, the file is damaged; the
        message then counts as a root, where it stays visible and no path can be circular.
        """
        parent_id = self._links[message_id].parent_id
        return parent_id if parent_id in self._links and parent_id is not None and parent_id < message_id else None

    def shown(self, siblings_under: int | None) -> int | None:
        """The child of `siblings_under` that is shown; None if it has none."""
        link = self._shown.get(siblings_under)
        return None if link is None else link.id

    def path(self) -> list[int]:
        """The messages that are shown, first to last."""
        path: list[int] = []
        at = self.shown(None)
        while at is not None:
            path.append(at)
            at = self.shown(at)
        return path

    def sibling(self, message_id: int) -> tuple[int, int]:
        """The number of a message among its parent's children, from 1, oldest first, and how many there are."""
        return self._numbers[message_id], len(self._children[self.parent(message_id)])

    def leaves(self) -> list[int]:
        """The messages without children, each the end of another path; every message is on at least one.

        Leaves that share more of their path are closer together; otherwise older ones come first.
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
        """A pick number higher than that of any sibling."""
        return 1 + self._shown[self.parent(message_id)].picked

    def lineage(self, message_id: int) -> list[int]:
        """The message and its ancestors up to the root."""
        lineage: list[int] = []
        at: int | None = message_id
        while at is not None:
            lineage.append(at)
            at = self.parent(at)
        return lineage
