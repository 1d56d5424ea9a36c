"""Which replies the engine keeps on disk, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.conversation import Conversation
from app.core.pair_choice import choose_pair, pair_options_of
from app.core.reply_options import ReplyOptions
from app.settings.table import Settings
from app.store.chat_store import ChatStore
from app.system import places
from tests.app.core.test_dialogue import Chat


async def test_a_request_names_the_chat_only_if_it_is_stored(tmp_path: Path) -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        assert chat.engine.requests[-1].chat_id is None, "this store is in memory"
    store = ChatStore.open(tmp_path / "chats.db")
    conversation = Conversation(store)
    assert conversation.stored_id is None
    conversation.ask("Hi")
    assert conversation.chat is not None
    assert conversation.stored_id == conversation.chat.id
    assert (
        ReplyOptions().request(1, conversation.to_send(), conversation.stored_id).chat_id == conversation.chat.id
    )
    store.close()


@pytest.mark.parametrize(("setting", "limit_bytes"), [("auto", None), (0, 0), (2.5, 2_500_000_000)])
def test_the_setting_is_the_engines_bound(setting: float, limit_bytes: int | None) -> None:
    load = choose_pair(None, pair_options_of(Settings(chat_cache=setting))).load
    assert load.chat_cache_bytes == limit_bytes
    assert load.chat_cache_folder == str(places.chat_cache_folder())
