"""A GPT-2 from elsewhere (a .pt of nanoGPT or its kin, a Hugging Face folder or hub id) → a checkpoint of ours.

Files of torch.save are read with `weights_only`, so that loading one runs no code. What such a file says about itself may be an
object of the trainer's own config class; it is read as a plain mapping, without the class.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.checkpoint import resolve
from workings.models.exchange import check_widths, fill, is_gpt2, read_tensors, save_gpt2
from workings.models.gpt2 import GPT2
from workings.models.layouts import contradictions, plausible_heads, shape_of, to_own, unlike_ours, with_biases
from workings.text.export import ABOUT as OWN_TOKENIZER
from workings.text.tokenizer import Tokenizer, Vocabulary


def import_gpt2(
    source: str | Path,
    folder: str | Path,
    *,
    n_heads: int | None = None,
    tokenizer: str | Path | None = None,
    vocabulary: Vocabulary | None = None,
) -> Path:
    """Write a checkpoint folder from `source`. BadInput names what is missing, extra, or must be said on the command line.

    `tokenizer`: a tokenizer folder of ours, or the byte-level BPE to build one on (hub id, path); else the source's own, or gpt2.
    """
    path = resolve(source)
    if is_gpt2(path):
        raise BadInput(f"{source} is a checkpoint of ours already; there is nothing to import")
    tensors, about = _read_folder(path) if path.is_dir() else _read_file(path)
    state = to_own(tensors, str(source))
    if about.get("bias") is False:
        state = with_biases(state)
    heads = about.get("n_head", n_heads)
    if n_heads not in (None, heads):
        raise BadInput(f"{source} says that it has {heads} attention heads, not {n_heads}: leave --heads out")
    if not isinstance(heads, int):
        width = state["wte.weight"].shape[1] if "wte.weight" in state else 0
        raise BadInput(
            f"{source} does not say how many attention heads it has, and weights do not show it: name them with --heads "
            f"(GPT-2 of width {width} has {plausible_heads(width)})"
        )
    shape = shape_of(state, heads, str(source))
    for field, said, real in contradictions(about, shape):
        raise BadInput(
            f"{source} says {field} = {said}, its tensors {real}: tensors are missing, or the config is another model's"
        )
    model = GPT2(shape)
    fill(model, state, str(source))
    reader = _tokenizer(path, tokenizer, vocabulary, model.config.vocab)
    check_widths(model.config, reader)
    return save_gpt2(model, reader, folder)


def _tokenizer(path: Path, reference: str | Path | None, vocabulary: Vocabulary | None, n_rows: int) -> Tokenizer:
    own = path if reference is None else Path(reference)
    if (own / OWN_TOKENIZER).is_file():
        found = Tokenizer.load(own)
        if vocabulary not in (None, found.vocabulary):
            raise BadInput(f"{own} is a tokenizer of vocabulary {found.vocabulary}, not {vocabulary}")
        return found
    if reference is None:
        reference = path if (path / "tokenizer.json").is_file() else "gpt2"
    digits = Tokenizer.build(reference, "digits")
    if vocabulary is None and n_rows >= digits.width:
        raise BadInput(
            f"with {n_rows} embedding rows this model may know facts; say with --vocabulary what its tokenizer was "
            "(digits, facts, shuffled or reserved), or name a tokenizer of ours with --tokenizer"
        )
    return digits if vocabulary in (None, "digits") else Tokenizer.build(reference, vocabulary)


# ── Hugging Face ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder} has no config.json that can be read ({error}): it is no Hugging Face model") from None
    for name, value, ours in unlike_ours(config):
        raise BadInput(f"{folder}/config.json: {name} is {value!r}, our GPT-2 has {ours!r}")
    return _weights_in(folder), {"n_head": 12} | config


def _weights_in(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return {name: value for file in files for name, value in read_tensors(folder / file).items()}
    if (folder / "model.safetensors").is_file():
        return read_tensors(folder / "model.safetensors")
    if (folder / "pytorch_model.bin").is_file():
        return _read_file(folder / "pytorch_model.bin")[0]
    raise BadInput(f"{folder} holds no model.safetensors and no pytorch_model.bin: there are no weights to import")


# ── files of torch.save ──────────────────────────────────────────────────────────────────────────────────────────────


class _Said:
    """Stands in for whatever config class a trainer had: holds its fields, runs none of its code."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


def _read_file(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a .safetensors or torch.save file, and what it says about its model."""
    if file.suffix == ".safetensors":
        return read_tensors(file), {}
    content = _loaded(file)
    if not isinstance(content, dict):
        raise BadInput(f"{file} holds a {type(content).__name__}, not a mapping of tensors")
    tensors = content.get("model", content.get("state_dict", content))
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise BadInput(f"{file} holds no mapping of tensors, neither at its top nor under 'model'")
    return dict(tensors), {**_fields(content.get("config")), **_fields(content.get("model_args"))}


def _loaded(file: Path) -> Any:
    """The content of a torch.save file. BadInput where it needs code to be read, or cannot be."""
    try:
        zipped = zipfile.is_zipfile(file)  # older files are read if they hold plain values only
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(str(file)) if zipped else []
        foreign = sorted(name for name in classes if not name.endswith("Config"))
        if foreign:
            raise BadInput(
                f"{file} holds Python objects ({', '.join(foreign[:3])}) beside its weights: loading them could run any "
                "code, so it is refused. Where it was trained, save the weights alone: "
                "torch.save({'model': model.state_dict()}, file)"
            )
        with torch.serialization.safe_globals([(_Said, name) for name in classes]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        said = str(error).strip().split("\n")[0]
        raise BadInput(f"{file} is no file of torch.save that can be read safely: {said}") from error


def _fields(about: Any) -> dict[str, Any]:
    return dict(about) if isinstance(about, Mapping) else dict(getattr(about, "__dict__", {}))
