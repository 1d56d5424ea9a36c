"""Who is refused, and what cannot harm the server."""

from __future__ import annotations

import queue
import resource
import socket
from collections.abc import Iterator
from select import select
from typing import Any

import pytest

from app.serve import connections, guard
from app.serve.guard import Policy, is_loopback
from tests.app.serve.serving import CHAT, QuickEngine, Served, chat, serving
from tests.patience import PATIENCE_S

MIB = 1 << 20


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(QuickEngine()) as served:
        yield served


def head(*lines: str, path: str = CHAT) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def answered(served: Served) -> bool:
    with served.client() as client:
        return client.post(CHAT, json=chat()).status_code == 200


def received(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    data = b""
    try:
        while part := connection.recv(1 << 16):
            data += part
    except ConnectionResetError:
        pass
    return data


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://example.com"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"sec-fetch-site": "cross-site"},
        {"host": "rebound.example.com"},
        {"host": "rebound.example.com:8765"},
        {"host": "127.0.0.1.example.com"},
        {"host": ""},
    ],
)
def test_a_web_page_is_refused_everywhere(served: Served, headers: dict[str, str]) -> None:
    with served.client(headers=headers) as client:
        for method, path in (
            ("POST", CHAT),
            ("GET", "/v1/models"),
            ("OPTIONS", CHAT),
            ("GET", "/slipstream/requests"),
        ):
            refused = client.request(method, path)
            assert refused.status_code == 403
            assert refused.json()["error"]["code"] == "forbidden"
            assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:99", "127.1.2.3", "[::1]:8765"])
def test_names_of_this_machine_are_answered(served: Served, host: str) -> None:
    with served.client(headers={"host": host}) as client:
        assert client.get("/v1/models").status_code == 200


def test_only_this_machine_is_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "::1", "localhost.")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "localhost.example.com", "", "1")))


def test_any_key_is_accepted_where_none_is_wanted(served: Served) -> None:
    with served.client() as client:
        for headers in ({}, {"authorization": "Bearer DUMMY"}, [(b"x-api-key", "é".encode())]):
            assert client.get("/v1/models", headers=headers).status_code == 200


def test_a_key_that_is_wanted_in_both_forms() -> None:
    with serving(QuickEngine(), key="schlüssel", host="0.0.0.0") as served, served.client() as client:
        sent = "schlüssel".encode()
        for name, value in ((b"authorization", b"bearer " + sent), (b"x-api-key", sent)):
            assert (
                client.get("/v1/models", headers=[(name, value), (b"host", b"any.example.com")]).status_code == 200
            )
        for headers in ({}, {"authorization": "Bearer other"}, {"x-api-key": "schl"}):
            refused = client.get("/v1/models", headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        page = client.get("/v1/models", headers=[(b"x-api-key", sent), (b"origin", b"http://a")])
        assert page.status_code == 403, "a page cannot use it, even with the key"


def test_a_huge_body_is_refused_before_it_is_read(served: Served) -> None:
    with served.socket() as connection:
        connection.sendall(head(f"Content-Length: {1 << 30}") + b"{")
        assert received(connection).startswith(b"HTTP/1.1 413 ")
    assert answered(served)


def test_a_huge_body_without_a_length_is_refused_on_the_way(served: Served) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    piece = b"%x\r\n" % MIB + b" " * MIB + b"\r\n"
    sent = 0
    with served.socket() as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        try:
            while sent < 1024:
                connection.sendall(piece)
                sent += 1
        except OSError:
            pass
        received(connection)
    assert sent < 64, "the rest was not taken"
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 150 * 1024
    assert answered(served)


def test_many_large_bodies_at_once_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_BODIES_BYTES", 300_000)
    with serving(QuickEngine()) as served, served.socket() as first, served.socket() as second:
        for connection in (first, second):
            connection.sendall(head("Content-Length: 400000") + b" " * 200_000)
        refused, other = (first, second) if select([first, second], [], [])[0] == [first] else (second, first)
        assert received(refused).startswith(b"HTTP/1.1 429 ")
        other.sendall(b" " * 200_000)
        assert answered(served)


def test_a_header_without_end_is_cut_off(served: Served) -> None:
    with served.socket() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        sent = 0
        try:
            while sent < 64:
                connection.sendall(b"x" * MIB)
                sent += 1
        except OSError:
            pass
        received(connection)
    assert sent < 64
    assert answered(served)


def test_large_headers_that_come_at_once_are_refused(served: Served) -> None:
    with served.socket() as connection:
        connection.sendall(head(f"X: {'x' * 40_000}", "Connection: close"))
        assert received(connection).startswith(b"HTTP/1.1 431 ")
    assert answered(served)


def test_a_request_that_does_not_come_is_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_S", 0.05)
    for begun in (b"", b"GET / HT", head("Content-Length: 5")[:-2]):
        with served.socket() as connection:
            connection.sendall(begun)
            assert received(connection) == b""
    monkeypatch.setattr(guard, "BODY_S", 0.05)
    with served.socket() as connection:
        connection.sendall(head("Content-Length: 5") + b"{")
        assert received(connection).startswith(b"HTTP/1.1 408 ")


def test_idle_connections_keep_nobody_out(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 200)
    idle = [served.socket() for _ in range(1000 if _files() > 2100 else 300)]
    try:
        assert answered(served)
        assert received(idle[0]) == b"", "the one that was idle longest made room"
    finally:
        for connection in idle:
            connection.close()


def _files() -> int:
    """How many files this process may open; both ends of a connection count."""
    connections.allow_connections()
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class LongWindedEngine(QuickEngine):
    """Says a lot to the first who asks."""

    def say(self, text: str, **_: Any) -> None:
        super().say(text * 2_000_000 if len(self.requests) == 1 else text)


def test_who_does_not_read_holds_nobody_up_and_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: queue.SimpleQueue[Any] = queue.SimpleQueue()
    connection_lost = connections.LimitedConnection.connection_lost

    def losing(self: connections.LimitedConnection, error: Exception | None) -> None:
        lost.put(self.client)
        connection_lost(self, error)

    monkeypatch.setattr(connections, "WRITE_S", 0.05)
    monkeypatch.setattr(connections.LimitedConnection, "connection_lost", losing)
    with serving(LongWindedEngine()) as served, served.socket() as connection:
        body = b'{"stream":true,"messages":[{"role":"user","content":"Hi"}]}'
        connection.sendall(head(f"Content-Length: {len(body)}") + body)
        served.wait_for(lambda states: bool(states) and states[0]["state"] == "done")
        assert answered(served)
        while lost.get(timeout=PATIENCE_S) != connection.getsockname():
            pass  # reading before that would make this a client that reads
        length = len(received(connection))
    assert length < 24_000_000, "the rest was dropped"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "valid JSON"),
        (b"{", "valid JSON"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b'{"temperature": NaN, "messages": [{"role": "user", "content": "Hi"}]}', "temperature is out of range"),
        (
            b'{"max_tokens": -Infinity, "messages": [{"role": "user", "content": "Hi"}]}',
            "is not a whole number",
        ),
        (b'{"a": "\xff"}', "not valid UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"{}", "messages"),
    ],
)
def test_a_malformed_body_is_told(served: Served, body: bytes, words: str) -> None:
    with served.client() as client:
        for path in (CHAT, "/v1/messages"):
            refused = client.post(path, content=body)
            assert refused.status_code == 400
            assert words in refused.json()["error"]["message"]


def test_half_a_character_is_replaced() -> None:
    engine = QuickEngine()
    with serving(engine) as served, served.client() as client:
        body = b'{"messages": [{"role": "user", "content": "a\\ud83d b \\ud83d\\ude00"}]}'
        assert client.post(CHAT, content=body).status_code == 200
    assert engine.requests[0].messages[0].text == "a� b 😀"


def test_a_fault_says_nothing_of_what_was_sent(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "what nobody else may read"

    def fail(self: object, body: dict[str, object]) -> None:
        raise ValueError(canary)

    monkeypatch.setattr("app.serve.dialects.openai_chat.ChatCompletions.read", fail)
    with serving(QuickEngine()) as served, served.client() as client:
        broken = client.post(f"{CHAT}?{canary}", json=chat())
    assert (broken.status_code, broken.json()["error"]["code"]) == (500, "internal_error")
    said = capfd.readouterr()
    assert "ValueError" in said.err
    assert canary not in said.out + said.err + broken.text


def test_a_policy_beyond_this_machine() -> None:
    assert Policy("127.0.0.1").is_loopback
    assert not Policy("0.0.0.0").is_loopback
