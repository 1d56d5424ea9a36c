"""Tells the person about the store: errors when they happen, and its notice once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from app.core.reply_view import ReplyView, Tell
from app.store.chat_store import ChatStore
from app.store.errors import StoreError


@contextmanager
def storing(tell: Tell) -> Iterator[None]:
    """Tell the person about a StoreError instead of raising it."""
    try:
        yield
    except StoreError as error:
        tell(str(error), severity="error")


class StoreNotices:
    """Tells the store's notice whenever it changes, and shows whether changes are saved."""

    def __init__(self, store: ChatStore, tell: Tell, view: ReplyView | None = None) -> None:
        """view: None if there is nothing to show it with."""
        self._store = store
        self._tell = tell
        self._view = view
        self._last_told: str | None = None

    def check(self) -> None:
        self.tell_once(self._store.notice)
        if self._view is not None:
            self._view.show_cut_off(self._store.is_cut_off)

    def tell_news(self, news: Iterable[str]) -> None:
        """Tell what has happened to the open chat."""
        for text in news:
            self._tell(text, severity="warning", timeout=20)

    def tell_once(self, notice: str | None) -> None:
        """Tell `notice` unless it was the last one."""
        if notice != self._last_told:
            self._last_told = notice
            if notice:
                self._tell(notice, severity="warning", timeout=20)
