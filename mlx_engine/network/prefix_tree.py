"""Conversations that are not running: a tree of tokens, with the rows that they left in the caches.

A node is a run of tokens that the same conversations share. It has the rows of the full layers, and those of the
sliding layers only near marks: a conversation can be continued where the sliding rows of a whole window before it
are here. Rows that two conversations share are stored once. The full rows of the running conversation's own path
are lent: its buffers contain them, and the nodes are without.

Knows token ids and rows, but not what reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from mlx_engine.network.kv_cache import copied
from mlx_engine.network.layer_cache import Rows
from mlx_engine.network.tapped_rows import TappedRows
from mlx_engine.text.common_prefix import common_length


@dataclass(eq=False, slots=True)
class Node:
    """A run of tokens behind those of its parents."""

    begin: int
    """Position of its first token."""
    tokens: list[int]
    readings: list[int]
    """Of each token, by which reading its rows came to be; see PrefixCache."""
    parent: Node | None = None
    full: list[Rows] | None = None
    """By full layer, the rows of all its tokens; None: lent to the running conversation."""
    sliding: list[Rows] | None = None
    """By sliding layer, the same; None: not kept."""
    tapped: tuple[TappedRows, ...] = ()
    """What drafters have of the conversation that ended behind its last token."""
    children: dict[int, Node] = field(default_factory=dict)
    """By their first token."""
    used_at: int = 0
    """When a conversation last continued behind it, in uses of all trees of the budget."""
    sliding_used_at: int = 0
    """When its sliding rows were last needed for that."""

    @property
    def end(self) -> int:
        """Position behind its last token."""
        return self.begin + len(self.tokens)

    def descendants(self) -> Iterator[Node]:
        """The nodes behind it, parents first."""
        waiting = list(self.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()

    @property
    def nbytes(self) -> int:
        """Bytes of its own rows, and of what drafters have."""
        layers = [*(self.full or ()), *(self.sliding or ())]
        rows_bytes = sum(keys.nbytes + values.nbytes for keys, values in layers)
        return rows_bytes + sum(rows.nbytes for rows in self.tapped)


class PrefixTree:
    """The prefixes of one model. The root has no tokens."""

    def __init__(self, window_rows: int) -> None:
        """window_rows: of sliding layers, needed before a position to continue there; 0 without such layers."""
        self._window_rows = window_rows
        self.root = Node(0, [], [], full=[], sliding=[])

    def path(self, tokens: Sequence[int]) -> list[Node]:
        """The nodes whose tokens `tokens` begins with, in order; the root is left out."""
        return [node for node, matched in self._walk(tokens) if matched == len(node.tokens)]

    def _walk(self, tokens: Sequence[int]) -> Iterator[tuple[Node, int]]:
        """Nodes along `tokens`, and how many of their tokens agree; only the last one may agree in part."""
        node, position = self.root, 0
        while position < len(tokens) and (child := node.children.get(tokens[position])):
            matched = common_length(child.tokens, tokens[position : position + len(child.tokens)])
            yield child, matched
            if matched < len(child.tokens):
                return
            node, position = child, child.end

    def best(self, tokens: Sequence[int]) -> int:
        """The most of `tokens` that a conversation can continue behind; 0 if there is nothing."""
        covered_from: int | None = 0
        best = 0
        for node, matched in self._walk(tokens):
            if self._window_rows and node.sliding is None:
                covered_from = None
                continue
            covered_from = node.begin if covered_from is None else covered_from
            if covered_from == 0 or node.begin + matched - covered_from >= self._window_rows:
                best = node.begin + matched
        return best

    def extend(self, tokens: Sequence[int], readings: Sequence[int]) -> None:
        """Add what is missing of `tokens`, as a lent node. readings: of the tokens."""
        path = self.path(tokens)
        last = path[-1] if path else self.root
        if last.end == len(tokens):
            return
        if tokens[last.end] in last.children:  # it agrees in part
            following = last.children[tokens[last.end]]
            last = self.cut(tokens, last.end + common_length(following.tokens, tokens[last.end :]))
            if last.end == len(tokens):
                return
        last.children[tokens[last.end]] = Node(
            last.end, list(tokens[last.end :]), list(readings[last.end :]), last
        )

    def cut(self, tokens: Sequence[int], position: int) -> Node:
        """The node along `tokens` that ends at `position`, cut off from what follows if need be.

        `tokens` must be here up to `position`.
        """
        node = self.root
        while node.end < position:
            node = node.children[tokens[node.end]]
        return node if node.end == position else _cut(node, position - node.begin)

    def nodes(self) -> Iterator[Node]:
        """All but the root, parents first."""
        return self.root.descendants()

    def clear(self) -> None:
        """Drop everything."""
        for node in list(self.nodes()):
            node.parent, node.children = None, {}
        self.root.children = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all rows; those lent are not here."""
        return sum(node.nbytes for node in self.nodes())

    def oldest(self) -> tuple[int, Node] | None:
        """What was not used for the longest time and can go, and when it was used; None: nothing can.

        A node that others continue, or that is lent, can lose its sliding rows and what drafters have, no more.
        """
        candidates = [
            (node.sliding_used_at if node.children or node.full is None else node.used_at, -node.begin, node)
            for node in self.nodes()
            if node.sliding or node.tapped or not (node.children or node.full is None)
        ]
        at, _, node = min(candidates, key=lambda candidate: candidate[:2], default=(0, 0, None))
        return (at, node) if node else None

    def drop(self, node: Node) -> None:
        """Drop what `oldest` named, and what is of no use without it."""
        if node.children or node.full is None:
            node.sliding, node.tapped = None, ()
            return
        while (parent := node.parent) is not None and not node.children and node.full is not None:
            del parent.children[node.tokens[0]]
            node = parent
            if node.sliding is not None or not self._window_rows:
                return


def _cut(node: Node, count: int) -> Node:
    """Put a new node with the first `count` tokens before `node`, which keeps the others; returns the new one.

    Rows are copied: a slice would keep both halves in memory as long as one of them is used.
    """
    head = Node(
        node.begin,
        node.tokens[:count],
        node.readings[:count],
        node.parent,
        used_at=node.used_at,
        sliding_used_at=node.sliding_used_at,
    )
    assert node.parent is not None
    node.parent.children[head.tokens[0]] = head
    head.full, node.full = _split(node.full, count)
    head.sliding, node.sliding = _split(node.sliding, count)
    node.begin, node.parent = head.end, head
    node.tokens, node.readings = node.tokens[count:], node.readings[count:]
    head.children[node.tokens[0]] = node
    return head


def _split(layers: list[Rows] | None, count: int) -> tuple[list[Rows] | None, list[Rows] | None]:
    if layers is None:
        return None, None
    head: list[Rows] = []
    for index, (keys, values) in enumerate(layers):  # layer by layer, so that only one is in memory twice
        head.append(copied((keys[..., :count, :], values[..., :count, :])))
        layers[index] = copied((keys[..., count:, :], values[..., count:, :]))
        mx.eval(head[-1], layers[index])
    return head, layers
