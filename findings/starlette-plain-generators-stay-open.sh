#!/usr/bin/env bash
# starlette 1.10.0 under uvicorn 0.54.0: StreamingResponse takes async and plain generators. When the client leaves in
# mid-stream, an async one is ended before the background task runs; a plain one is dropped without being closed.
#
# Expected: `finally` runs when the client leaves, whichever kind of generator streams the reply.
# Seen: the plain generator's `finally` has not run when the response is over and its background task is done; it runs at
# some later garbage collection. What it frees, such as the only slot of a model, stays taken on an idle server.
# Fails if the plain generator is closed without a collection, or the async one no longer is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet starlette==1.10.0 uvicorn==0.54.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import gc
import socket
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route

events = []


def plain_words():
    try:
        while True:
            yield "word "
            time.sleep(0.02)
    finally:
        events.append("slot freed")


async def async_words():
    try:
        while True:
            yield "word "
            await asyncio.sleep(0.02)
    finally:
        events.append("slot freed")


def streaming(words):
    async def answer(request):
        return StreamingResponse(words(), background=BackgroundTask(events.append, "response over"))

    return answer


def wait_for(event):
    deadline = time.monotonic() + 60
    while event not in events:
        assert time.monotonic() < deadline, f"no {event!r} within a minute"
        time.sleep(0.02)


def leave_in_mid_stream(path):
    events.clear()
    gc.collect()
    with socket.create_connection(server.servers[0].sockets[0].getsockname()) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        while b"word" not in client.recv(1000):
            pass
    wait_for("response over")
    time.sleep(1)
    print(f"{path}: {events}")
    return list(events)


app = Starlette(routes=[Route("/async", streaming(async_words)), Route("/plain", streaming(plain_words))])
server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
thread = threading.Thread(target=server.run)
thread.start()
try:
    while not server.started:
        time.sleep(0.02)
    assert leave_in_mid_stream("/async") == ["slot freed", "response over"]
    assert leave_in_mid_stream("/plain") == ["response over"], "the plain generator is closed now"
    gc.collect()
    wait_for("slot freed")
    print(f"after a garbage collection: {events}")
finally:
    server.should_exit = True
    thread.join()
PYTHON
