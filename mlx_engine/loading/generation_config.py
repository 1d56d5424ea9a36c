"""A model folder's generation_config.json: defaults for what a request leaves open, and tokens it never draws.

Read as people write it. A value that cannot be meant is left out with a notice; it never costs a reply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlx_engine.files.folder_files import is_there, read_json
from mlx_engine.files.written_values import number, token_ids, truth, whole_number
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import SamplingOptions
from mlx_engine.speculation.sampling import Sampler, suppressed_within

NAME = "generation_config.json"
MAX_TEMPERATURE = 100
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """The keys that Slipstream uses."""

    default_temperature: float = 1.0
    """0 (greedy) also if the folder turns sampling off."""
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    eos_tokens: frozenset[int] = frozenset()
    """Ids that end a reply besides Gemma's own."""
    suppressed: frozenset[int] = frozenset()
    notices: tuple[str, ...] = ()
    """For people: the values that were left out."""

    @classmethod
    def read(cls, folder: Path) -> GenerationConfig:
        """Read a folder's file; without one nothing is set. Raises ModelFolderError if it is not JSON."""
        path = folder / NAME
        if not is_there(path):
            return cls()
        written = _Written(read_json(path))
        is_sampling = written.read("do_sample", truth, True)
        temperature = written.read("temperature", _temperature, 1.0)
        return cls(
            default_temperature=temperature if is_sampling else 0.0,
            top_k=written.read("top_k", _top_k, 0),
            top_p=written.read("top_p", _top_p, 1.0),
            eos_tokens=written.read_ids("eos_token_id"),
            suppressed=written.read_ids("suppress_tokens"),
            notices=tuple(f"{path}: {problem}." for problem in written.problems),
        )

    def check(self, folder: Path, stop_tokens: frozenset[int], vocab_size: int) -> None:
        """Raises ModelFolderError if it leaves no token for a reply. stop_tokens: all that end a reply."""
        unusable = stop_tokens | self.suppressed
        if len(suppressed_within(tuple(unusable), vocab_size)) >= vocab_size:
            raise ModelFolderError(
                f"{folder / NAME} leaves no token for a reply: eos_token_id and suppress_tokens name all of them. "
                "Correct or delete it."
            )

    def sampler(self, options: SamplingOptions, vocab_size: int, seed: int) -> Sampler:
        """The request's settings, with the folder's for those it leaves open. Raises RequestError."""
        return Sampler(
            temperature=_chosen(options.temperature, self.default_temperature),
            top_k=_chosen(options.top_k, self.top_k),
            top_p=_chosen(options.top_p, self.top_p),
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
            suppressed=suppressed_within(sorted(self.suppressed), vocab_size),
            is_coupled=options.rule == "coupled",
            seed=_chosen(options.seed, seed),
        )


class _Written:
    """The values of a file, and what was wrong with some of them."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self.problems: list[str] = []

    def read(self, key: str, parse: Callable[[Any], T | None], default: T) -> T:
        """The parsed value. null and a missing key are the default, and so is a value that parses to None."""
        value = self._values.get(key)
        parsed = None if value is None else parse(value)
        if value is not None and parsed is None:
            self.problems.append(f"{key} is {str(value)[:40]}, which cannot be used; {_plain(default)} is used")
        return default if parsed is None else parsed

    def read_ids(self, key: str) -> frozenset[int]:
        """The token ids of a list; entries that are none are left out."""
        ids, is_whole = token_ids(self._values.get(key))
        if not is_whole:
            self.problems.append(
                f"{key} is {str(self._values[key])[:40]}, where token ids belong; others are ignored"
            )
        return ids


def _temperature(value: Any) -> float | None:
    found = number(value)
    return found if found is not None and 0 <= found <= MAX_TEMPERATURE else None


def _top_k(value: Any) -> int | None:
    """-1 and 0 keep all."""
    found = whole_number(value)
    return max(found, 0) if found is not None and found >= -1 else None


def _top_p(value: Any) -> float | None:
    """0 keeps all, as where the key is missing."""
    found = number(value)
    return (found or 1.0) if found is not None and 0 <= found <= 1 else None


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _chosen(given: T | None, default: T) -> T:
    return default if given is None else given
