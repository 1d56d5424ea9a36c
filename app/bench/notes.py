"""A filler text of any length to put before a prompt: a harbour log in which no two entries are the same."""

from __future__ import annotations

from random import Random

from mlx_engine.protocol.events import Message

SEED = 4
_SHIPS = ("Aurora", "Bertha", "Cormorant", "Dunlin", "Eider", "Fulmar", "Guillemot", "Hanna", "Isbjorn", "Juno")
_WINDS = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
_CARGO = (
    "timber",
    "herring",
    "gravel",
    "tinned peas",
    "bicycles",
    "post",
    "roof tiles",
    "apples",
    "cement",
    "wool",
)
_EVENTS = (
    "{ship} came in with {number} tonnes of {cargo}",
    "{ship} left for the south quay after {number} minutes at the lock",
    "the crane at berth {number} was stopped while {cargo} was weighed again",
    "{ship} asked for a pilot and waited {number} minutes",
    "a crate of {cargo} from {ship} was counted twice: {number} pieces",
    "the watch on {ship} reported {number} seals on the breakwater",
)


def harbour_log(characters: int) -> str:
    """At least this many characters of log entries, the same ones every time."""
    random = Random(SEED)
    entries: list[str] = []
    length = 0
    while length < characters:
        hour, minute = divmod(len(entries) * 17, 60)
        event = random.choice(_EVENTS).format(
            ship=random.choice(_SHIPS), number=random.randrange(2, 400), cargo=random.choice(_CARGO)
        )
        entries.append(
            f"Day {hour // 24 + 1}, {hour % 24:02}:{minute:02}. Wind {random.choice(_WINDS)} "
            f"{random.randrange(3, 40)} knots; {event}."
        )
        length += len(entries[-1]) + 1
    return "\n".join(entries)


def log_messages(characters: int) -> tuple[Message, ...]:
    """Messages that give the model the log to read; none for 0 characters."""
    if characters <= 0:
        return ()
    return (
        Message("user", f"Here is a log to keep in mind. A question about something else follows.\n\n"
                        f"{harbour_log(characters)}"),
        Message("assistant", "I have read the log."),
    )  # fmt: skip
