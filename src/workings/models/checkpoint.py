"""Checkpoints in and out: our own folder, the released CODI layouts, and plain causal language models.

A folder of ours holds `config.json` (the base model's), `thinking.json` (what makes it think), `model.safetensors`, the tokenizer
and a card: all that is needed to run it. Released files hold a PEFT state dict only (keys `codi.…` or `coconut.…`), so config and
tokenizer come from the base, and the LoRA factors are merged: W + alpha / r · B A, computed in fp32.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from workings.config import from_dict
from workings.errors import BadInput
from workings.models.anatomy import anatomy_of
from workings.models.codi import CODI
from workings.models.configs import CodiConfig

BUNDLED = {"bundled": "recurrent", "bundled-control": "constant"}
PREFIX = re.compile(r"^(codi|coconut)\.")
DEFAULT_ALPHA = 32.0
FAMILIES = (CODI,)


def load(
    reference: str | Path,
    *,
    base: str | Path | None = None,
    lora_alpha: float | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> CODI:
    """Any checkpoint that thinks → CODI on `device` in `dtype`, in evaluation mode. BadInput says what cannot be used, and why."""
    path = resolve(reference)
    if path.is_dir() and (path / "thinking.json").exists():
        model = _load_own(path, dtype)
    else:
        model = _load_released(path, base, lora_alpha, dtype)
    return model.to(device).eval()  # type: ignore[return-value]


def open_model(
    reference: str | Path,
    *,
    base: str | Path | None = None,
    lora_alpha: float | None = None,
    n_thoughts: int = 6,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> CODI:
    """Like `load`, and a plain causal language model (folder, GGUF file, hub id) is wrapped as an untrained CODI."""
    path = resolve(reference)
    if _is_plain(path):
        model, tokenizer = load_base(path, dtype)
        name = "untrained CODI round " + _digest_of_files(path)
        return CODI.wrap(model, tokenizer, seed=seed, n_thoughts=n_thoughts, fingerprint=name).to(device).eval()  # type: ignore[return-value]
    return load(path, base=base, lora_alpha=lora_alpha, device=device, dtype=dtype)


def resolve(reference: str | Path) -> Path:
    """`bundled`, a local path, or a hub id (`owner/name`, `owner/name@revision`) → a local file or folder."""
    if str(reference) in BUNDLED:
        return Path(__file__).parent.parent / "bundled" / BUNDLED[str(reference)]
    path = Path(reference).expanduser()
    if path.exists():
        return path
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?", str(reference)):
        raise BadInput(f"no checkpoint at {reference}: there is no such file or folder. Check the path.")
    return _from_hub(str(reference))


def _from_hub(reference: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    name, _, revision = reference.partition("@")
    patterns = ["*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise BadInput(
            f"'{reference}' is neither a local path nor a model that the hub gives us now ({type(error).__name__}). "
            "Check the spelling; offline, only models already in the local cache can be named."
        ) from error


def load_base(reference: str | Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A plain causal language model and its tokenizer from a folder, a `.gguf` file or a hub id; no remote code is run."""
    path = resolve(reference)
    folder, extra = (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (path, {})
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **extra)
        # A GGUF file asked for in another format keeps its weights packed; in fp32 they are plain matrices.
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if extra else dtype, **extra)
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(
            f"{reference} is not a causal language model that transformers can load: {_first_line(error)}"
        ) from error
    anatomy_of(model.config)
    if extra:  # dequantised on loading: forget that it was, or it could not be saved
        model.config.__dict__.pop("quantization_config", None)
        vars(model)["hf_quantizer"] = None
        model = model.to(dtype)
    return model, tokenizer


# Our own folder ------------------------------------------------------------------------------------------------------


def save(model: CODI, folder: Path, card: str | None = None) -> Path:
    """Write a checkpoint folder; it appears whole or not at all. Raises BadInput if the folder already holds something."""
    from safetensors.torch import save_file

    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not empty; name a new folder, so that nothing is overwritten")
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    model.base.config.save_pretrained(partial)
    model.tokenizer.save_pretrained(partial)
    (partial / "thinking.json").write_text(json.dumps({"family": "codi"} | asdict(model.config), indent=1) + "\n")
    tensors = {k: v.detach().cpu().contiguous() for k, v in _without_tied(model).items()}
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    (partial / "model.safetensors").chmod(0o644)  # it is made readable by its owner only
    if card:
        (partial / "README.md").write_text(card)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    return folder


def _without_tied(model: CODI) -> dict[str, Tensor]:
    state = model.state_dict()
    if model.base.config.tie_word_embeddings:
        state.pop("base.lm_head.weight", None)
    return state


def _load_own(folder: Path, dtype: torch.dtype) -> CODI:
    fields = json.loads((folder / "thinking.json").read_text())
    family = fields.pop("family", None)
    if family != "codi":
        raise BadInput(f"{folder}/thinking.json names the family '{family}'; this version knows: codi")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).exists():
            raise BadInput(f"{folder} has no {name}: the checkpoint is incomplete. Copy the whole folder again.")
    model = _empty(
        AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), from_dict(CodiConfig, fields), dtype
    )
    _fill(model, _read(folder / "model.safetensors"), folder)
    model.fingerprint = fingerprint_of(folder)
    return model


def _empty(config: Any, tokenizer: Any, codi: CodiConfig, dtype: torch.dtype) -> CODI:
    """A model of the right shape whose weights are about to be replaced."""
    anatomy_of(config)
    base = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return CODI(base, tokenizer, codi)


def _fill(model: CODI, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Strict: every parameter must be in the file with its shape, and nothing may be left over."""
    wanted = _without_tied(model)
    missing = sorted(wanted.keys() - tensors.keys())
    if missing:
        raise BadInput(
            f"{source} lacks {len(missing)} tensor(s): {_listed(missing)}. It is not a whole checkpoint of this model."
        )
    surplus = sorted(tensors.keys() - wanted.keys())
    if surplus:
        raise BadInput(f"{source} has {len(surplus)} tensor(s) that this model has no place for: {_listed(surplus)}")
    for name, place in wanted.items():
        if place.shape != tensors[name].shape:
            raise BadInput(f"{source}: {name} has shape {tuple(tensors[name].shape)}, expected {tuple(place.shape)}")
        place.copy_(tensors[name])
    model.base.tie_weights()


def fingerprint_of(folder: Path) -> str:
    """sha256 over the files that decide what a checkpoint computes."""
    return _digest_of_files(folder)


def _digest_of_files(path: Path) -> str:
    sha = hashlib.sha256()
    kinds = ("*.safetensors", "*.bin", "config.json", "thinking.json", "tokenizer.json")
    files = [path] if path.is_file() else sorted({f for kind in kinds for f in path.glob(kind)})
    for file in files:
        sha.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                sha.update(block)
    return sha.hexdigest()


def _is_plain(path: Path) -> bool:
    """A causal language model without thoughts: has a config of its own and no thinking.json."""
    return path.suffix == ".gguf" or (
        path.is_dir()
        and (path / "config.json").exists()
        and not (path / "thinking.json").exists()
        and not _looks_released(path)
    )


def _looks_released(folder: Path) -> bool:
    from safetensors import safe_open

    file = folder / "model.safetensors"
    if not file.exists():
        return False
    with safe_open(file, "pt") as opened:
        return any(family.recognises(opened.keys()) for family in FAMILIES)


# Released layouts ----------------------------------------------------------------------------------------------------


def _load_released(path: Path, base: str | Path | None, lora_alpha: float | None, dtype: torch.dtype) -> CODI:
    file = _weights_file(path)
    tensors = _read(file)
    _family_of(tensors, file)
    if base is None:
        raise BadInput(
            f"{file} holds weights only. Name the base model it was trained from (--base, path or hub id) "
            "for its config and tokenizer."
        )
    where = resolve(base)
    config, tokenizer = AutoConfig.from_pretrained(where), AutoTokenizer.from_pretrained(where)
    model = build_released(tensors, config, tokenizer, lora_alpha, dtype, file)
    model.fingerprint = _digest_of_files(file)
    return model


def _family_of(keys: Iterable[str], source: Path) -> type[CODI]:
    """The one family whose keys these are. None, or more than one, is an error: a family is never guessed."""
    keys = list(keys)
    found = [family for family in FAMILIES if family.recognises(keys)]
    if len(found) != 1:
        known = ", ".join(family.__name__ for family in found or FAMILIES)
        why = "several families have such keys" if found else "no key starts with codi. or coconut."
        raise BadInput(
            f"{source} is no checkpoint of one of {known}: {why} (its first key: {next(iter(keys), 'none')})"
        )
    return found[0]


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).exists():
            return path / name
    raise BadInput(
        f"{path} holds no thinking.json, model.safetensors or pytorch_model.bin: there is no checkpoint to load"
    )


def _read(file: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors or .bin file, on the CPU. Pickles are read with `weights_only`."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # both libraries raise bare errors of many types for a damaged file
        raise BadInput(f"{file} cannot be read as weights: {_first_line(error)}. Is the download complete?") from error


def build_released(
    tensors: Mapping[str, Tensor],
    config: Any,
    tokenizer: Any,
    lora_alpha: float | None,
    dtype: torch.dtype,
    source: Path,
) -> CODI:
    """Released state dict + base config and tokenizer → CODI with the LoRA factors merged."""
    tensors = {PREFIX.sub("", k): v for k, v in tensors.items()}
    dropped = sorted(k for k in tensors if re.match(r"decoder\.|pj_|expainable_llm\.", k))
    if dropped:
        warnings.warn(
            f"{source}: {len(dropped)} tensor(s) of an auxiliary decoder are ignored: {_listed(dropped)}", stacklevel=2
        )
    tensors = {k: v for k, v in tensors.items() if k not in set(dropped)}
    alpha = _alpha(tensors, lora_alpha, source)
    plain = {"base." + k: v for k, v in _merged(tensors, alpha, source).items() if not k.startswith("prj.")}
    plain |= {k: v for k, v in tensors.items() if k.startswith("prj.")}
    plain = _one_head(plain, config, source)
    embedding = "base." + anatomy_of(config).embedding + ".weight"
    if embedding not in plain:
        raise BadInput(
            f"{source} lacks 1 tensor(s): {embedding.removeprefix('base.')}. It is not a whole checkpoint of this model."
        )
    rows = plain[embedding].shape[0]
    vocabulary = rows - 3
    if vocabulary < len(tokenizer) - 1:  # official training adds [PAD] to the tokenizer: its id is our pad row
        raise BadInput(
            f"{source}: {rows} embedding rows cannot hold the {len(tokenizer)} tokens of this base's tokenizer + 3; wrong base?"
        )
    config.vocab_size = rows
    inner = plain["prj.1.weight"].shape[0] if "prj.1.weight" in plain else 0
    codi = CodiConfig(
        vocabulary=vocabulary,
        projection=inner > 0,
        projection_width=inner,
        projection_norm="prj.ln.weight" in plain,
        lora_alpha=alpha,
    )
    model = _empty(config, tokenizer, codi, dtype)
    _fill(model, plain, source)
    return model


def _alpha(tensors: Mapping[str, Tensor], given: float | None, source: Path) -> float | None:
    if not any(".lora_A." in k for k in tensors):
        return None
    if given is None:
        warnings.warn(
            f"{source} does not say its lora_alpha; {DEFAULT_ALPHA:g} is used (the released value). Set --lora-alpha.",
            stacklevel=2,
        )
        return DEFAULT_ALPHA
    return given


def _merged(tensors: Mapping[str, Tensor], alpha: float | None, source: Path) -> dict[str, Tensor]:
    """Strip PEFT's wrapping and add each LoRA pair to its weight, in fp32."""
    plain: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("base_model.model.")
        factor = re.fullmatch(r"(.+)\.lora_([AB])\.default\.weight", name)
        if factor:
            pairs.setdefault(factor[1], {})[factor[2]] = tensor
        else:
            plain[name.replace(".base_layer.", ".")] = tensor
    for name, pair in pairs.items():
        weight = plain.get(f"{name}.weight")
        if weight is None or pair.keys() != {"A", "B"}:
            part = (
                f"{name}.base_layer.weight"
                if weight is None
                else f"{name}.lora_{'B' if 'A' in pair else 'A'}.default.weight"
            )
            raise BadInput(f"{source} lacks 1 tensor(s): {part}. It is not a whole checkpoint of this model.")
        delta = pair["B"].float() @ pair["A"].float() * (alpha or 0) / pair["A"].shape[0]
        # GPT-2's Conv1D keeps its weight as [in, out]; a linear layer as [out, in]. A square delta is told by the module's name.
        transposed = name.split(".")[-1] in ("c_attn", "c_proj", "c_fc")
        plain[f"{name}.weight"] = weight.float() + (delta.T if transposed else delta)
    return plain


def _one_head(plain: dict[str, Tensor], config: Any, source: Path) -> dict[str, Tensor]:
    """Tied models: one table. Where a file holds two that differ, the official code ends with the head's rows in both."""
    if not config.tie_word_embeddings:
        return plain
    head = plain.pop("base.lm_head.weight", None)
    embedding = "base." + anatomy_of(config).embedding + ".weight"
    if head is None:
        return plain
    if embedding in plain and not torch.equal(head, plain[embedding]):
        warnings.warn(
            f"{source}: lm_head and embedding differ though they are tied; lm_head is used for both", stacklevel=2
        )
    return plain | {embedding: head}


def _listed(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
