#!/usr/bin/env bash
# textual 8.2.8, Screen.dismiss: a list asks a question in a screen above itself; while that is open, work in the background
# is done and the list dismisses itself with the result.
#
# Expected: the list closes, or `dismiss` raises because another screen is above it.
# Seen: the list's callback gets the result, and the list stays open. The question closes instead, without an answer: its own
# callback is never called.
# Fails if the list closes, or if the first dismissal raises.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet textual==8.2.8
cat >screens.py <<'PROGRAM'
import asyncio

from textual.app import App
from textual.screen import ModalScreen


class Models(ModalScreen[str]):
    """A list that closes by itself when a download has ended."""


class Sure(ModalScreen[bool]):
    """A question above the list."""


async def main() -> None:
    app, answers = App(), []
    async with app.run_test() as pilot:
        models, sure = Models(), Sure()
        await app.push_screen(models, lambda answer: answers.append(("Models", answer)))
        await app.push_screen(sure, lambda answer: answers.append(("Sure", answer)))
        models.dismiss("downloaded")
        await pilot.pause()
        print("open:", [type(screen).__name__ for screen in app.screen_stack[1:]], "answers:", answers)


asyncio.run(main())
PROGRAM
saw=$(venv/bin/python screens.py)
echo "$saw"
[ "$saw" = "open: ['Models'] answers: [('Models', 'downloaded')]" ] || { echo "dismiss no longer does that"; exit 1; }
