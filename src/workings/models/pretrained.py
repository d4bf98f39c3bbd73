"""A folder, GGUF file or LoRA adapter of somebody's → a causal language model of transformers with its tokenizer, strictly.

transformers draws what a file lacks at random and goes on, runs code that it finds beside the weights if it is told to, and asks
on the terminal if it is not. Here a model is whole or refused, whoever saved it, and nothing but transformers' own code is run.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from workings import progress
from workings.errors import BadInput
from workings.hub import why_unloadable
from workings.models.adapters import CONFIG, AdapterConfig, is_adapter, merge, unpacked
from workings.models.anatomy import anatomy_of
from workings.models.checkpoint import resolve
from workings.models.weights import (
    ADAPTER_WEIGHTS,
    WEIGHTS,
    check_digest,
    check_manifest,
    plain_names,
    read_tensors,
    read_weights,
    refuse_incomplete,
    refuse_not_finite,
    weight_files,
)


def load_base(
    reference: str | Path, dtype: torch.dtype = torch.float32, base: str | Path | None = None
) -> tuple[Any, Any]:
    """Load a model of transformers to be wrapped, of a family whose parts we know; otherwise as `load_transformers`."""
    path = resolve(reference)
    anatomy_of(config_in(files_of(path, base)[-1]))
    return load_transformers(path, dtype, base)


def load_transformers(
    path: Path, dtype: torch.dtype = torch.float32, base: str | Path | None = None
) -> tuple[Any, Any]:
    """Load a causal language model of any family and its tokenizer; no remote code is run.

    Args:
        path: A folder, a `.gguf` file, or a folder of PEFT with a LoRA adapter, which is added to its base.
        dtype: The number format of the model.
        base: The base of an adapter; without it, what the adapter names.

    Raises:
        BadInput: transformers cannot load it, or a tensor is missing, of another shape, or not finite. Tensors left over are
            allowed, since files of others hold more than their model computes with (an auxiliary head, old masks).
    """
    places = files_of(path, base)
    for place in places:
        check_manifest(place)
    whole = places[-1]
    config = config_in(whole)
    own = whole if whole == path or not any(path.glob("tokenizer*")) else path
    tokenizer = tokenizer_in(own)
    model = _from_gguf(whole, dtype) if whole.suffix == ".gguf" else _from_folder(whole, config, dtype)
    if whole != path:
        _adapt(model, path)
    refuse_not_finite(path, dict(model.named_parameters()))
    return model, tokenizer


def files_of(path: Path, base: str | Path | None = None) -> tuple[Path, ...]:
    """The places that decide what a model computes: its own, and behind an adapter's that of the base."""
    if not is_adapter(path):
        return (path,)
    named = base or (said.base if (said := AdapterConfig.beside(path)) else None)
    if not named:
        raise BadInput(
            f"{path}/{CONFIG} does not name the base of the adapter (base_model_name_or_path): write it there"
        )
    try:
        found = resolve(named)
    except BadInput as error:
        raise BadInput(f"{path} is an adapter of {named}: {error}") from None
    if is_adapter(found):
        raise BadInput(f"{path} is an adapter of {found}, an adapter too: merge the first with PEFT (merge_and_unload)")
    return path, found


def config_in(path: Path) -> Any:
    """The config of transformers in a folder or `.gguf` file. BadInput where there is none, or of a model with code of its own."""
    file = path / "config.json"
    if path.suffix != ".gguf":
        try:
            fields = json.loads(file.read_text("utf-8"))
        except OSError:
            raise BadInput(f"{path} has no config.json: it is no model of transformers") from None
        except ValueError as error:
            raise BadInput(f"{file} cannot be read as JSON ({error}): copy or download it again") from None
        if not isinstance(fields, Mapping) or "model_type" not in fields:
            raise BadInput(f"{file} names no model_type: it is no config of transformers")
    with _refusing(path, "config"):
        return AutoConfig.from_pretrained(*_place(path)[0], **_place(path)[1], trust_remote_code=False)


def tokenizer_in(path: Path) -> Any:
    """The tokenizer of transformers in a folder or `.gguf` file. BadInput where there is none that it can read."""
    with _refusing(path, "tokenizer"):
        tokenizer: Any = AutoTokenizer.from_pretrained(*_place(path)[0], **_place(path)[1], trust_remote_code=False)
    if len(tokenizer) - len(tokenizer.added_tokens_decoder) < 1:  # without files, some classes make an empty one
        raise BadInput(f"{path} has no tokenizer that can be read: copy tokenizer.json and tokenizer_config.json there")
    return tokenizer


def _place(path: Path) -> tuple[tuple[Path], dict[str, str]]:
    return ((path.parent,), {"gguf_file": path.name}) if path.suffix == ".gguf" else ((path,), {})


@contextmanager
def _refusing(path: Path, what: str) -> Generator[None]:
    """Inside, whatever transformers raises about a model's config, tokenizer or weights becomes BadInput."""
    try:
        yield
    except (
        Exception
    ) as error:  # OSError, ValueError, KeyError, TypeError, …, each for many causes; tokenizers: Exception itself
        if isinstance(error, MemoryError) or "out of memory" in str(error):
            raise
        what = {"tokenizer": "has no tokenizer that can be read", "config": "has a config that cannot be used"}.get(
            what, "is not a causal language model that transformers can load"
        )
        raise BadInput(f"{path} {what}: {why_unloadable(error)}") from error


@contextmanager
def quiet_loading() -> Generator[None]:
    """Inside, transformers shows no bar of its own while it loads weights, if this process is quiet."""
    hidden = progress.is_quiet() and logging.is_progress_bar_enabled()
    if hidden:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hidden:
            logging.enable_progress_bar()


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_gguf(file: Path, dtype: torch.dtype) -> Any:
    # Asked for in another format it keeps its weights packed; in fp32 they are plain matrices.
    model, missing = _loaded(AutoModelForCausalLM, file, file.parent, dtype=torch.float32, gguf_file=file.name)
    refuse_incomplete(file, missing=missing)
    # Dequantised on loading: forget that it was, or it could not be saved.
    model.config.__dict__.pop("quantization_config", None)
    vars(model)["hf_quantizer"] = None
    return model.to(dtype)


def _from_folder(folder: Path, config: Any, dtype: torch.dtype) -> Any:
    for file in {folder / WEIGHTS, *weight_files(folder)[0]}:
        check_digest(file)
    missing: set[str] = set()
    if not (folder / CONFIG).is_file():  # or transformers would look for an adapter
        model, missing = _loaded(AutoModelForCausalLM, folder, folder, dtype=dtype)
        if not missing:
            return model
    tensors = _without_prefix(_plain_tensors(folder), missing)
    with _refusing(folder, "config"), torch.device("meta"):
        family = type(AutoModelForCausalLM.from_config(config, trust_remote_code=False))
    model, missing = _loaded(family, folder, None, dtype=dtype, config=config, state_dict=tensors)
    refuse_incomplete(folder, missing=missing)
    if (folder / "generation_config.json").is_file():
        with _refusing(folder, "generation_config"):
            model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def _loaded(family: Any, path: Path, place: Path | None, **options: Any) -> tuple[Any, set[str]]:
    """A model of transformers, and the names of the tensors that were missing. BadInput where one has another shape."""
    with _refusing(path, "weights"), quiet_loading():
        model, found = family.from_pretrained(
            place, output_loading_info=True, trust_remote_code=False, ignore_mismatched_sizes=True, **options
        )
    # transformers draws what is missing or does not fit at random and goes on.
    refuse_incomplete(path, misshapen={name: (tuple(a), tuple(b)) for name, a, b in found["mismatched_keys"]})
    return model, set(found["missing_keys"])


def _plain_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a whole model, without what training frameworks and PEFT make of their names; LoRA factors added in."""
    plain, pairs = unpacked(plain_names(read_weights(folder), folder), folder)
    if pairs:
        merge(plain, pairs, _config_of(folder), folder)
    return plain


def _without_prefix(tensors: dict[str, Tensor], missing: set[str]) -> dict[str, Tensor]:
    """Without what stands before all names, where a wrapper kept the model as one of its fields."""
    behind = (name.removesuffix(lost) for name in tensors for lost in missing if name.endswith(f".{lost}"))
    prefix = next(behind, "")
    return (
        {name.removeprefix(prefix): value for name, value in tensors.items()}
        if prefix and all(name.startswith(prefix) for name in tensors)
        else tensors
    )


def _config_of(folder: Path) -> AdapterConfig:
    found = AdapterConfig.beside(folder)
    if found is None:
        raise BadInput(f"{folder} has LoRA factors and no {CONFIG} that says how they count: copy it there")
    return found


@torch.no_grad()
def _adapt(model: Any, folder: Path) -> None:
    """Add an adapter to its base, in place."""
    config = _config_of(folder)
    if config.changes_base:
        raise BadInput(
            f"{folder}/{CONFIG}: init_lora_weights changed the base's weights: merge the adapter with PEFT first"
        )
    file = next(folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file())
    plain, pairs = unpacked(plain_names(read_tensors(file), file), file)
    table = next(name for name, value in model.named_parameters() if value is model.get_input_embeddings().weight)
    if table in plain and len(plain[table]) != len(model.get_input_embeddings().weight):
        model.resize_token_embeddings(len(plain[table]), mean_resizing=False)
    state = model.state_dict()
    adapted = {f"{module}.weight" for module in pairs}
    refuse_incomplete(
        file,
        surplus=(plain.keys() | adapted) - state.keys(),
        misshapen={
            k: (tuple(v.shape), tuple(state[k].shape))
            for k, v in plain.items()
            if k in state and v.shape != state[k].shape
        },
    )
    weights = {name: state[name] for name in adapted} | plain
    merge(weights, pairs, config, file)
    for name, value in weights.items():
        state[name].copy_(value)
    if unlike := [name for name, value in weights.items() if not torch.equal(state[name], value.to(state[name].dtype))]:
        raise BadInput(f"{file}: {unlike[0]} differs from the tensor that the base ties it to")
