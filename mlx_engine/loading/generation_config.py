"""A model folder's generation_config.json: defaults for what a request leaves open, and tokens it never draws."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from mlx_engine.files.folder_files import is_there, read_json
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import SamplingOptions
from mlx_engine.speculation.sampling import Sampler, suppressed_within

NAME = "generation_config.json"
T = TypeVar("T")


class GenerationConfig(msgspec.Struct, frozen=True):
    """The keys that Slipstream uses."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    eos_token_id: int | list[int] | None = None
    suppress_tokens: list[int] | None = None

    @classmethod
    def read(cls, folder: Path) -> GenerationConfig:
        """Read a folder's file; without one nothing is set. Raises ModelFolderError."""
        path = folder / NAME
        if not is_there(path):
            return cls()
        try:
            return msgspec.convert(read_json(path), cls)
        except msgspec.ValidationError as error:
            raise ModelFolderError(f"{path} cannot be used: {error}. Correct or delete it.") from None

    @property
    def default_temperature(self) -> float:
        """0 (greedy) only if the folder turns sampling off."""
        if self.do_sample is False:
            return 0.0
        return 1.0 if self.temperature is None else self.temperature

    @property
    def eos_tokens(self) -> frozenset[int]:
        """Ids that end a reply besides Gemma's own."""
        eos = self.eos_token_id
        return frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])

    def check(self, folder: Path, stop_tokens: frozenset[int], vocab_size: int) -> None:
        """Raises ModelFolderError if it leaves no token for a reply. stop_tokens: those of the text format."""
        unusable = stop_tokens | self.eos_tokens | frozenset(self.suppress_tokens or ())
        if len(suppressed_within(tuple(unusable), vocab_size)) >= vocab_size:
            raise ModelFolderError(
                f"{folder / NAME} leaves no token for a reply: eos_token_id and suppress_tokens name all of them. "
                "Correct or delete it."
            )

    def sampler(self, options: SamplingOptions, vocab_size: int, seed: int) -> Sampler:
        """The request's settings, with the folder's for those it leaves open. Raises RequestError."""
        return Sampler(
            temperature=_chosen(options.temperature, self.default_temperature),
            top_k=_chosen(options.top_k, self.top_k or 0),
            top_p=_chosen(options.top_p, self.top_p or 1.0),
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
            suppressed=suppressed_within(self.suppress_tokens or (), vocab_size),
            is_coupled=options.rule == "coupled",
            seed=_chosen(options.seed, seed),
        )


def _chosen(given: T | None, default: T) -> T:
    return default if given is None else given
