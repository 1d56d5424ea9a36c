"""Makes a quantized copy of a target or a drafter: `python -m mlx_engine.loading.convert SOURCE COPY`.

mlx-lm quantizes and writes. The engine's own checked readers read, and an assistant, which mlx-lm does not know,
is our own network. Tensors are read when they are needed, so a model far larger than the memory can be converted.
`conversion.json` in the copy records the source, the settings and the hash of every file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import quantize_model, save_config, save_model

from mlx_engine.files.config_file import ASSISTANT_TYPES, TARGET_TYPES, TEXT_ONLY_TYPES, read_config
from mlx_engine.files.folder_files import is_there, read_bytes
from mlx_engine.files.quantization import without_quantization
from mlx_engine.files.weight_files import read_tensors
from mlx_engine.network import assistant, target
from mlx_engine.protocol.errors import ModelFolderError, SlipstreamError
from mlx_engine.protocol.out_of_memory import is_out_of_memory, quoted
from mlx_engine.text.template_files import DEFAULT, MORE_TEMPLATES_FOLDER, TEMPLATE_FILE

RECORD = "conversion.json"
RECORD_FORMAT = 1
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
COPIED = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "generation_config.json",
)  # fmt: skip

Say = Callable[[str], None]
Choose = Callable[[str, nn.Module], bool | dict[str, Any]]
"""Whether the layer at a path is quantized; a dict has its own settings."""


def convert(
    source: Path, copy: Path, bits: int = 4, group_size: int = 64, say: Say = lambda step: None
) -> dict[str, Any]:
    """Write the quantized copy and return its record. Raises ModelFolderError, and then leaves no copy behind."""
    if bits not in BITS or group_size not in GROUP_SIZES:
        raise ModelFolderError(
            f"{bits} bits in groups of {group_size} are not possible. Use {BITS} and {GROUP_SIZES}."
        )
    if os.path.lexists(copy):
        raise ModelFolderError(f"{copy} exists already. Use another name, or remove it first.")
    say(f"reading {source.name}")
    config = read_config(source)
    module, keep = _read(source, config)
    before = sum(array.nbytes for _, array in tree_flatten(module.parameters()))
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        say(f"quantizing to {bits} bits")
        module, made = quantize_model(module, without_quantization(config), group_size, bits, quant_predicate=keep)
        after = sum(array.nbytes for _, array in tree_flatten(module.parameters()))
        say(f"writing {after / 1e6:,.0f} MB")
        save_model(partial, module, donate_model=True)
        save_config(made, partial / "config.json")
        for name in COPIED:
            if is_there(source / name):
                (partial / name).write_bytes(read_bytes(source / name))
        packed = source / MORE_TEMPLATES_FOLDER / f"{DEFAULT}.jinja"
        if not is_there(partial / TEMPLATE_FILE) and is_there(packed) and not packed.parent.is_symlink():
            (partial / TEMPLATE_FILE).write_bytes(read_bytes(packed))
        say("checking")
        read_tensors(partial)
        record = _record(
            source, partial, {"bits": bits, "group_size": group_size, "mode": "affine"}, (before, after)
        )
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        os.rename(partial, copy)  # the whole folder at once, so it is not a case for `replace_file`
    except (OSError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ModelFolderError(
                f"Memory ran out while {source} was being quantized ({quoted(error)}). Close other programs, "
                "or do it on a machine with more memory."
            ) from None
        raise ModelFolderError(
            f"{copy} could not be written ({error}). Check the free space on the disk."
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def _read(source: Path, config: dict[str, Any]) -> tuple[nn.Module, Choose]:
    """The network with its tensors, not yet evaluated, and the choice of layers to quantize.

    Makes `config` the one to write beside them.
    """
    kind = config.get("model_type")
    try:
        if kind in TARGET_TYPES:
            model = target.build(config, source)
            weights = _unquantized(target.target_weights(model, config, source), source)
            model.load_weights(list(weights.items()))
            text = config if kind in TEXT_ONLY_TYPES else config["text_config"]
            text["tie_word_embeddings"] = model.language_model.args.tie_word_embeddings
            # Other tools expect their own names in an export of the text model alone.
            saved = model.language_model if kind in TEXT_ONLY_TYPES else model
            return saved, _where_it_divides(saved.quant_predicate)
        if kind in ASSISTANT_TYPES:
            return _read_assistant(source, config)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelFolderError(
            f"{source} does not contain the model that its config.json describes ({error})."
        ) from None
    raise ModelFolderError(f"{source} is a {kind!r} model. Only Gemma 4 targets and assistants can be converted.")


def _unquantized(weights: dict[str, mx.array], source: Path) -> dict[str, mx.array]:
    """The weights themselves. Raises ModelFolderError if they are quantized."""
    if any(name.endswith(".scales") for name in weights):
        raise ModelFolderError(
            f"{source} is quantized already. Convert the full-precision folder it was made from."
        )
    return weights


def _where_it_divides(choose: Choose) -> Choose:
    """mlx-lm's choice of layers, without those whose width is no multiple of their own group size."""

    def chosen(path: str, layer: nn.Module) -> bool | dict[str, Any]:
        choice = choose(path, layer)
        return False if isinstance(choice, dict) and layer.weight.shape[-1] % choice["group_size"] else choice

    return chosen


def _read_assistant(source: Path, config: dict[str, Any]) -> tuple[nn.Module, Choose]:
    network = assistant.build(config, source)
    is_ordered = network.config.use_ordered_embeddings
    weights = _unquantized(assistant.assistant_weights(config, source), source)
    network.load_weights(list(weights.items()))
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True  # it has one table only

    def keep(path: str, layer: nn.Module) -> bool:
        # The centroid head is small, reads single rows, and picks clusters by small differences.
        return not (is_ordered and (path.startswith("masked_embedding") or path == "model.embed_tokens"))

    return network, keep


def _record(source: Path, folder: Path, quantization: dict[str, Any], sizes: tuple[int, int]) -> dict[str, Any]:
    real = source.resolve()
    is_snapshot = real.parent.name == "snapshots"
    return {
        "format": RECORD_FORMAT,
        "source": real.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        if is_snapshot
        else str(real),
        "source_commit": real.name if is_snapshot else None,
        "quantization": quantization,
        "weights_bytes_before": sizes[0],
        "weights_bytes_after": sizes[1],
        "made_with": {name: version(name) for name in ("slipstream", "mlx", "mlx-lm")},
        "files": {
            path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())
        },
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Convert, and print steps, the record or an error as JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m mlx_engine.loading.convert")
    parser.add_argument("source", type=Path)
    parser.add_argument("copy", type=Path)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    options = parser.parse_args()
    # Libraries print; on the real standard output, that would be read as a message.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=out, flush=True)

    try:
        record = convert(
            options.source, options.copy, options.bits, options.group_size, lambda step: tell({"step": step})
        )
    except SlipstreamError as error:
        tell({"error": str(error)})
        return 1
    finally:
        mx.clear_streams()
    tell({"record": record})
    return 0


if __name__ == "__main__":
    sys.exit(main())
