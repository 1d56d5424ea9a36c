"""Links: only web addresses are opened, and only after the whole address was shown."""

from __future__ import annotations

import shutil
import subprocess
import webbrowser
from typing import Any

import pytest

from app.tui.screens.link import LinkScreen, WebLink, open_in_browser, parse_web_link
from app.tui.terminal import safe_app
from app.tui.transcript.text_block import TextBlock
from tests.app.tui.pilot import Story, chat

ADDRESS = "https://user@example.org:8443/a/very/long/path?with=" + "x" * 300 + "#end"
REFUSED = [
    "smb://host/share",
    "ssh://host",
    "vscode://file/etc/passwd",
    "x-apple.systempreferences:com.apple.preference",
    "file:///etc/passwd",
    "/etc/passwd",
    "javascript:alert(1)",
    "data:text/html,x",
    "ftp://host/x",
    "mailto:a@b",
    "-flag",
    "--new-window",
    "%action",
    "http:",
    "http://",
    "https:///path",
    "http://[::1",
    "http://host/\u202egpj.exe",
    "http://host/a b",
    "http://host/\x1b]52;c;x\x07",
    "http://hös.example/",
    "HTTP\n://host",
    "",
]


@pytest.mark.parametrize("address", REFUSED)
def test_other_than_web_addresses_are_refused(address: str) -> None:
    assert parse_web_link(address) is None


def test_a_web_address_names_its_host() -> None:
    assert parse_web_link(ADDRESS) == WebLink(ADDRESS, "example.org")
    assert parse_web_link("HTTP://EXAMPLE.org") == WebLink("HTTP://EXAMPLE.org", "example.org")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were opened in a browser."""
    addresses: list[str] = []

    def keep(link: WebLink) -> bool:
        addresses.append(link.address)
        return True

    def never(*arguments: Any, **options: Any) -> bool:
        raise AssertionError("opened without asking")

    monkeypatch.setattr(safe_app, "open_in_browser", keep)
    monkeypatch.setattr(webbrowser, "open", never)
    return addresses


async def click(story: Story, address: str) -> None:
    """Click a link in the newest reply."""
    story.transcript.query(TextBlock).last().action_link(address)
    await story.pilot.pause()


async def test_a_link_is_shown_in_full_before_it_is_opened(opened: list[str]) -> None:
    async with chat() as story:
        await story.exchange("Hi", f"[harmless]({ADDRESS})")
        await story.pilot.click(".reply-text TextBlock", offset=(3, 0))
        await story.until(lambda: isinstance(story.app.screen, LinkScreen), story.screen())
        assert "leads to example.org" in story.screen()
        assert ADDRESS in "".join(story.screen().split())
        assert not opened
        await story.pilot.press("enter")
        await story.until(lambda: opened == [ADDRESS])


async def test_a_link_can_be_cancelled_or_copied(opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_app, "copy_with_pbcopy", lambda text: True)
    async with chat() as story:
        await story.exchange("Hi", "a link")
        await click(story, ADDRESS)
        await story.pilot.press("escape")
        await story.until(lambda: not isinstance(story.app.screen, LinkScreen))
        await click(story, ADDRESS)
        await story.pilot.press("c")
        await story.until_told("Link copied.")
        assert story.app.clipboard == ADDRESS
        assert not opened


async def test_a_refused_link_is_reported_and_not_opened(opened: list[str]) -> None:
    async with chat() as story:
        await story.exchange("Hi", "a link")
        for address in REFUSED[:3]:
            await click(story, address)
            await story.until_told(f"Not opened, because it is not an http or https link: {address}")
            assert not isinstance(story.app.screen, LinkScreen)
        assert not opened


def test_the_browser_gets_the_address_as_one_argument_and_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, Any]]] = []
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "Popen", lambda words, **how: started.append((words, how)))
    link = parse_web_link(ADDRESS)
    assert link is not None
    assert open_in_browser(link)
    [(words, how)] = started
    assert words == ["/usr/bin/open", ADDRESS]
    assert how["stdin"] == how["stdout"] == how["stderr"] == subprocess.DEVNULL
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not open_in_browser(link)
