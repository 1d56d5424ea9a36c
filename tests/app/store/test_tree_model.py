"""Random sequences of actions on a chat, compared with a model in plain Python, with reopening in between."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.store import transfer
from app.store.chat_store import ChatStore
from app.store.search import contains, terms_of
from tests.app.store.support import Clock, quick_folder, write
from tests.cases import cases

TEXT = st.text(max_size=12)
PICK = st.integers(0, 1 << 16)


@dataclass
class Node:
    """A message in the model."""

    id: int
    parent: Node | None
    role: str
    text: str
    state: str
    children: list[Node] = field(default_factory=list)
    shown: Node | None = None

    def add(self, child: Node) -> None:
        self.children.append(child)
        self.shown = child

    def show(self) -> None:
        node = self
        while node.parent:
            node.parent.shown = node
            node = node.parent

    @property
    def is_seen(self) -> bool:
        return self.parent is None or (self.parent.shown is self and self.parent.is_seen)

    def leaves(self) -> list[Node]:
        return [leaf for child in self.children for leaf in child.leaves()] or [self]


class StoreAgainstModel(RuleBasedStateMachine):
    """One chat; another one beside it must never change."""

    @initialize()
    def begin(self) -> None:
        self.resources = ExitStack()
        self.path = self.resources.enter_context(quick_folder()) / "chats.db"
        self.clock = Clock()
        self.store = ChatStore.open(self.path, self.clock)
        other = self.store.create_chat("other")
        self.store.ask(other.id, None, "untouched")
        self.other = transfer.exported(self.store, other.id), other.id
        self.chat_id = self.store.create_chat("chat").id
        self.root = Node(0, None, "root", "", "")
        self.nodes: list[Node] = []

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.resources.close()

    def picked(self, number: int, role: str | None = None) -> Node | None:
        nodes = [node for node in self.nodes if role in (None, node.role)]
        return nodes[number % len(nodes)] if nodes else None

    def add(self, id: int, parent: Node, role: str, text: str, state: str) -> None:
        assert all(id > node.id for node in self.nodes), "ids tell the order"
        node = Node(id, parent, role, text, state)
        parent.add(node)
        self.nodes.append(node)

    @rule(text=TEXT, at=PICK, is_at_end=st.booleans())
    def write(self, text: str, at: int, is_at_end: bool) -> None:
        """Continue at the end or anywhere else: in the middle, beside an earlier message, at the start."""
        nodes = [self.root, *self.nodes]
        parent = nodes[at % len(nodes)]
        while is_at_end and parent.shown:
            parent = parent.shown
        message = write(self.store, self.chat_id, parent.id or None, text)
        assert (message.text, message.sibling) == (text, len(parent.children) + 1)
        self.add(message.id, parent, "user", text, "complete")

    @rule(text=TEXT, at=PICK)
    def ask(self, text: str, at: int) -> None:
        nodes = [self.root, *self.nodes]
        parent = nodes[at % len(nodes)]
        _, message, reply = self.store.ask(self.chat_id, parent.id or None, text)
        self.add(message.id, parent, "user", text, "complete")
        self.add(reply.id, self.nodes[-1], "assistant", "", "generating")

    @rule(at=PICK)
    def generate(self, at: int) -> None:
        if parent := self.picked(at, "user"):
            self.add(self.store.begin_reply(parent.id).id, parent, "assistant", "", "generating")

    @rule(at=PICK, text=TEXT)
    def grow(self, at: int, text: str) -> None:
        reply = self.picked(at, "assistant")
        if reply and reply.state == "generating":
            self.store.grow_reply(reply.id, text)
            reply.text += text
            reply.state = "generating"

    @rule(at=PICK, text=TEXT, state=st.sampled_from(["complete", "stopped", "failed"]))
    def finish(self, at: int, text: str, state: str) -> None:
        reply = self.picked(at, "assistant")
        if reply and reply.state == "generating":
            self.store.finish_reply(reply.id, state, text=text)  # type: ignore[arg-type]
            reply.text += text
            reply.state = state

    @rule(at=PICK)
    def go_on(self, at: int) -> None:
        reply = self.picked(at, "assistant")
        if reply and reply.state != "complete":
            self.store.continue_reply(reply.id)
            reply.state = "generating"

    @rule(step=st.integers(-3, 3))
    def walk(self, step: int) -> None:
        self.store.walk(self.chat_id, step)
        if self.root.shown:
            leaves, at = self.root.leaves(), self.root
            while at.shown:
                at = at.shown
            leaves[max(0, min(leaves.index(at) + step, len(leaves) - 1))].show()

    @rule(at=PICK)
    def reveal(self, at: int) -> None:
        """Search for the whole text of a message."""
        if (node := self.picked(at)) and (terms := terms_of(node.text)):
            self.store.reveal(self.chat_id, node.text)
            holding = [
                each for each in self.nodes
                if each.state != "generating" and contains(each.text.encode(), " ".join(terms))
            ]  # fmt: skip
            if holding and not any(each.is_seen for each in holding):
                holding[-1].show()

    @rule(to_s=st.floats(-1e10, 1e10))
    def set_clock(self, to_s: float) -> None:
        self.clock.now_s = to_s

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = ChatStore.open(self.path, self.clock)
        for node in self.nodes:
            node.state = "interrupted" if node.state == "generating" else node.state

    @precondition(lambda self: self.nodes)
    @rule(is_json=st.booleans())
    def move_to_another_store(self, is_json: bool) -> None:
        write = transfer.export_json if is_json else transfer.export_markdown
        new = transfer.read_bytes(write(self.store, [self.chat_id]).encode(), "export")
        with quick_folder() as folder:
            elsewhere = ChatStore.open(folder / "chats.db", self.clock)
            (chat,) = elsewhere.import_chats(new)
            assert transfer.exported(elsewhere, chat.id) == transfer.exported(self.store, self.chat_id)
            elsewhere.close()

    @invariant()
    def the_same_branch_is_shown(self) -> None:
        if not hasattr(self, "store"):
            return
        expected = []
        node = self.root.shown
        while node:
            assert node.parent
            siblings = node.parent.children
            expected.append((node.id, node.role, node.text, node.state, siblings.index(node) + 1, len(siblings)))
            node = node.shown
        found = [
            (each.id, each.role, each.text, each.state, each.sibling, each.siblings)
            for each in self.store.path(self.chat_id)
        ]
        assert found == expected

    @invariant()
    def every_message_can_be_walked_to(self) -> None:
        if hasattr(self, "store"):
            shown, number = self.store.version(self.chat_id)
            assert number == len(self.root.leaves())
            leaf = self.root.leaves()[shown - 1]
            assert [each.id for each in self.store.path(self.chat_id)][-1:] == [leaf.id] * (leaf is not self.root)

    @invariant()
    def all_messages_are_there_in_order(self) -> None:
        if hasattr(self, "store"):
            found = [(each.id, each.parent_id, each.is_shown) for each in self.store.messages(self.chat_id)]
            assert found == [
                (node.id, node.parent.id or None if node.parent else None, node.parent.shown is node)  # type: ignore[union-attr]
                for node in self.nodes
            ]

    @invariant()
    def nothing_else_has_changed(self) -> None:
        if hasattr(self, "store"):
            chat, chat_id = self.other
            assert transfer.exported(self.store, chat_id) == chat


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(
    max_examples=cases(20, 1000),
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)
