"""A name → what a model is made of: folders of ours (CODI, GPT-2), released CODI checkpoints, models of transformers.

A CODI folder holds `config.json` (the base model's), `thinking.json` (what makes it think), the weights and the tokenizer: all
that is needed to run it. A GPT-2 folder holds `config.json` (`family: workings-gpt2`), the weights and `tokenizer/`. Both appear
whole or not at all, and are checked when they are opened (`weights.py`).

Released CODI files hold a PEFT state dict only (keys `codi.…` or `coconut.…`), so config and tokenizer come from the base, and
the LoRA factors are merged: W + alpha / r · B A, computed in fp32.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from workings.config import from_dict, to_dict
from workings.errors import BadInput
from workings.files import to_json
from workings.hub import HubReference, first_line, hub_errors
from workings.models.anatomy import anatomy_of
from workings.models.configs import CodiConfig, GPT2Config
from workings.models.gpt2 import GPT2
from workings.models.weights import (
    WEIGHTS,
    appearing,
    check_digest,
    fill,
    fingerprint_of,
    listed,
    read_tensors,
    refuse_incomplete,
    refuse_not_finite,
    write_tensors,
)
from workings.text.tokenizer import Tokenizer

BUNDLED = {"bundled": "recurrent", "bundled-control": "constant"}
GPT2_FAMILY = "workings-gpt2"
RELEASED = re.compile(r"^(codi|coconut)\.")  # the wrapped model in a released state dict; coconut was its older name
DEFAULT_ALPHA = 32.0


def resolve(reference: str | Path) -> Path:
    """Find the file or folder that a reference names, downloading it from the hub if need be.

    Args:
        reference: `bundled`, `bundled-control`, a local path, or a hub id (`owner/name`, `owner/name@revision`).

    Raises:
        BadInput: There is no such path, and no such model that the hub gives us.
        Failed: The hub or the network refuses.
    """
    if str(reference) in BUNDLED:
        return Path(__file__).parent.parent / "bundled" / BUNDLED[str(reference)]
    path = Path(reference).expanduser()
    if path.exists():
        return path
    model = HubReference.parse(str(reference))
    if model is None or model.config:
        raise BadInput(f"no checkpoint at {reference}: there is no such file or folder. Check the path.")
    patterns = ["*.json", "*.safetensors", "*.sha256", "*.bin", "*.model", "*.txt", "*.jinja"]
    with hub_errors(str(reference)):
        return Path(snapshot_download(model.name, revision=model.revision, allow_patterns=patterns))


# ── models of transformers ───────────────────────────────────────────────────────────────────────────────────────────


def load_base(reference: str | Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Load a model of transformers to be wrapped, of a family whose parts we know; otherwise as `load_transformers`."""
    model, tokenizer = load_transformers(resolve(reference), dtype)
    anatomy_of(model.config)
    return model, tokenizer


def load_transformers(path: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Load a causal language model of any family and its tokenizer from a folder or a `.gguf` file; no remote code is run.

    Raises:
        BadInput: transformers cannot load it, or a tensor is missing, of another shape, or not finite. Tensors left over are
            allowed, since files of others hold more than their model computes with (an auxiliary head, old masks).
    """
    folder, gguf = (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (path, {})
    check_digest(folder / WEIGHTS)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **gguf)
        # A GGUF file asked for in another format keeps its weights packed; in fp32 they are plain matrices.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32 if gguf else dtype, output_loading_info=True, **gguf
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise BadInput(
            f"{path} is not a causal language model that transformers can load: {first_line(error)}"
        ) from error
    model, found = loaded
    # transformers draws what is missing at random and goes on.
    misshapen = {name: (tuple(in_file), tuple(wanted)) for name, in_file, wanted in found["mismatched_keys"]}
    refuse_incomplete(path, missing=found["missing_keys"], misshapen=misshapen)
    refuse_not_finite(path, dict(model.named_parameters()))
    if gguf:  # dequantised on loading: forget that it was, or it could not be saved
        model.config.__dict__.pop("quantization_config", None)
        vars(model)["hf_quantizer"] = None
        model = model.to(dtype)
    return model, tokenizer


def is_plain(path: Path) -> bool:
    """Whether this is a causal language model without thoughts: it has a config of its own and no thinking.json."""
    if path.suffix == ".gguf":
        return True
    if not (path / "config.json").exists() or (path / "thinking.json").exists():
        return False
    if not (path / WEIGHTS).exists():
        return True
    with safe_open(path / WEIGHTS, "pt") as opened:
        return not any(map(RELEASED.match, opened.keys()))


# ── GPT-2 × tokenizer ⇄ our folder ───────────────────────────────────────────────────────────────────────────────────


def save_gpt2(model: GPT2, tokenizer: Tokenizer, folder: str | Path) -> Path:
    """Write a checkpoint of our GPT-2; it appears whole or not at all.

    Raises:
        BadInput: The folder already holds something, or the tokenizer gives ids that the model has no row for.
        Failed: The disk is full.
    """
    check_rows(model.config, tokenizer)
    with appearing(folder) as partial:
        (partial / "config.json").write_text(to_json({"family": GPT2_FAMILY} | to_dict(model.config)))
        write_tensors(model.state_dict(), partial / WEIGHTS)
        tokenizer.save(partial / "tokenizer")
    return Path(folder)


def load_gpt2(folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[GPT2, Tokenizer]:
    """Load what `save_gpt2` wrote, in evaluation mode. BadInput names the tensor or file that is not as it should be."""
    folder = Path(folder)
    if not is_gpt2(folder):
        raise BadInput(f"{folder} is no GPT-2 checkpoint of ours: it has no config.json with the family {GPT2_FAMILY}")
    fields = json.loads((folder / "config.json").read_text())
    del fields["family"]
    model = GPT2(from_dict(GPT2Config, fields))
    fill(model, read_tensors(folder / WEIGHTS), folder)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    check_rows(model.config, tokenizer)
    return model.to(device, dtype).eval(), tokenizer


def is_gpt2(folder: str | Path) -> bool:
    """Whether this is a folder of `save_gpt2`, whole or not."""
    try:
        return json.loads((Path(folder) / "config.json").read_text()).get("family") == GPT2_FAMILY
    except (OSError, ValueError, AttributeError):
        return False


def checkpoint_in(place: str | Path) -> Path:
    """The GPT-2 folder that `place` is, or that the run at `place` holds. BadInput if there is none."""
    for folder in (Path(place), Path(place) / "checkpoint" / "model"):
        if is_gpt2(folder):
            return folder
    raise BadInput(
        f"{place} is no GPT-2 checkpoint of ours and no run that holds one: name a folder that training wrote"
    )


def check_rows(config: GPT2Config, tokenizer: Tokenizer) -> None:
    """Raise BadInput if the tokenizer gives ids that the model has no embedding row for."""
    # Ids of its width that nothing encodes to may lack a row.
    needed = max(tokenizer.live[-1].stop, tokenizer.eot + 1)
    if needed > config.vocab:
        raise BadInput(
            f"the tokenizer needs {needed} embedding rows and the model has {config.vocab}: they do not belong together"
        )


# ── CODI ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class CodiParts:
    """What a CODI is built from. `tensors` are named as in its state dict (`base.…`, `prj.…`); a tied head is left out."""

    base: Any  # Hugging Face config of the base model, rows of pad, bot and eot included
    tokenizer: Any
    config: CodiConfig
    tensors: dict[str, Tensor]
    source: Path
    fingerprint: str


def save_codi(parts: CodiParts, folder: str | Path, card: str | None = None) -> Path:
    """Write a CODI folder; it appears whole or not at all. `card` becomes its README.md.

    Raises:
        BadInput: The folder already holds something.
        Failed: The disk is full.
    """
    with appearing(folder) as partial:
        parts.base.save_pretrained(partial)
        parts.tokenizer.save_pretrained(partial)
        (partial / "thinking.json").write_text(json.dumps({"family": "codi"} | asdict(parts.config), indent=1) + "\n")
        write_tensors(parts.tensors, partial / WEIGHTS)
        if card:
            (partial / "README.md").write_text(card)
    return Path(folder)


def read_codi(reference: str | Path, base: str | Path | None = None, lora_alpha: float | None = None) -> CodiParts:
    """Read a CODI of any layout: our folder, or a released checkpoint (folder, file or hub id).

    Args:
        reference: As `resolve` takes it.
        base: For a released checkpoint, the base model (path or hub id) that gives config and tokenizer.
        lora_alpha: For a released checkpoint; it is not in the file. Without it 32 is used, with a warning.

    Raises:
        BadInput: What is missing or does not fit, by name.
    """
    path = resolve(reference)
    if not (path / "thinking.json").exists():
        return _read_released(path, base, lora_alpha)
    fields = json.loads((path / "thinking.json").read_text())
    family = fields.pop("family", None)
    if family != "codi":
        raise BadInput(f"{path}/thinking.json names the family '{family}'; this version knows: codi")
    for name in ("config.json", WEIGHTS, "tokenizer.json"):
        if not (path / name).exists():
            raise BadInput(f"{path} has no {name}: the checkpoint is incomplete. Copy the whole folder again.")
    tensors = read_tensors(path / WEIGHTS)
    config, tokenizer = AutoConfig.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    return CodiParts(config, tokenizer, from_dict(CodiConfig, fields), tensors, path, fingerprint_of(path))


# ── released CODI checkpoints ────────────────────────────────────────────────────────────────────────────────────────


def _read_released(path: Path, base: str | Path | None, lora_alpha: float | None) -> CodiParts:
    file = (
        path
        if path.is_file()
        else next((path / n for n in (WEIGHTS, "pytorch_model.bin") if (path / n).exists()), None)
    )
    if file is None:
        raise BadInput(f"{path} holds no thinking.json, {WEIGHTS} or pytorch_model.bin: there is no checkpoint to load")
    tensors = read_tensors(file)
    if not any(map(RELEASED.match, tensors)):
        raise BadInput(
            f"{file} is no released checkpoint of CODI: no key starts with codi. or coconut. "
            f"(its first key: {next(iter(tensors), 'none')})"
        )
    if base is None:
        raise BadInput(
            f"{file} holds weights only. Name the base model it was trained from (--base, path or hub id) "
            "for its config and tokenizer."
        )
    base = resolve(base)
    config = AutoConfig.from_pretrained(base)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    embedding = "base." + anatomy_of(config).embedding + ".weight"
    tensors, alpha = _merged(_without_decoder(tensors, file), lora_alpha, file)
    tensors = {name if name.startswith("prj.") else f"base.{name}": value for name, value in tensors.items()}
    if config.tie_word_embeddings:
        _tie(tensors, embedding, file)
    if embedding not in tensors:
        refuse_incomplete(file, missing=[embedding.removeprefix("base.")])
    rows = tensors[embedding].shape[0]
    if rows - 3 < len(tokenizer) - 1:  # official training adds [PAD] to the tokenizer: its id is our pad row
        raise BadInput(
            f"{file}: {rows} embedding rows cannot hold the {len(tokenizer)} tokens of this base's tokenizer + 3; wrong base?"
        )
    config.vocab_size = rows
    inner = tensors["prj.1.weight"].shape[0] if "prj.1.weight" in tensors else 0
    codi = CodiConfig(
        vocabulary=rows - 3,
        projection=inner > 0,
        projection_width=inner,
        projection_norm="prj.ln.weight" in tensors,
        lora_alpha=alpha,
    )
    return CodiParts(config, tokenizer, codi, tensors, file, fingerprint_of(file))


def _without_decoder(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Names without the wrapper's prefix, and without the auxiliary decoder that some trainings leave in their files."""
    plain = {RELEASED.sub("", name): value for name, value in tensors.items()}
    dropped = [name for name in plain if re.match(r"decoder\.|pj_|expainable_llm\.", name)]
    if dropped:
        warnings.warn(
            f"{source}: {len(dropped)} tensor(s) of an auxiliary decoder are ignored: {listed(dropped)}", stacklevel=3
        )
    return {name: value for name, value in plain.items() if name not in dropped}


def _merged(tensors: Mapping[str, Tensor], alpha: float | None, source: Path) -> tuple[dict[str, Tensor], float | None]:
    """Strip PEFT's wrapping and add each LoRA pair to its weight, in fp32; also the alpha that was used, if there are pairs."""
    plain: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("base_model.model.")
        factor = re.fullmatch(r"(.+)\.lora_([AB])\.default\.weight", name)
        if factor:
            pairs.setdefault(factor[1], {})[factor[2]] = tensor
        else:
            plain[name.replace(".base_layer.", ".")] = tensor
    if not pairs:
        return plain, None
    if alpha is None:
        alpha = DEFAULT_ALPHA
        warnings.warn(
            f"{source} does not say its lora_alpha; {alpha:g} is used (the released value). Set --lora-alpha.",
            stacklevel=3,
        )
    for name, pair in pairs.items():
        if f"{name}.weight" not in plain:
            refuse_incomplete(source, missing=[f"{name}.base_layer.weight"])
        if pair.keys() != {"A", "B"}:
            refuse_incomplete(source, missing=[f"{name}.lora_{'B' if 'A' in pair else 'A'}.default.weight"])
        delta = pair["B"].float() @ pair["A"].float() * alpha / pair["A"].shape[0]
        # GPT-2's Conv1D keeps its weight as [in, out]; a linear layer as [out, in]. A square delta is told by the module's name.
        transposed = name.split(".")[-1] in ("c_attn", "c_proj", "c_fc")
        plain[f"{name}.weight"] = plain[f"{name}.weight"].float() + (delta.T if transposed else delta)
    return plain, alpha


def _tie(tensors: dict[str, Tensor], embedding: str, source: Path) -> None:
    """One table for embedding and head. Where a file holds two that differ, the official code ends with the head's in both."""
    head = tensors.pop("base.lm_head.weight", None)
    if head is None:
        return
    if embedding in tensors and not torch.equal(head, tensors[embedding]):
        warnings.warn(
            f"{source}: lm_head and embedding differ though they are tied; lm_head is used for both", stacklevel=3
        )
    tensors[embedding] = head
