"""A name → a file or folder; a folder of ours ⇄ a GPT-2; a GPT-2 from elsewhere → a folder of ours.

Our folder of a GPT-2 holds `config.json` (`family: workings-gpt2`), the weights and `tokenizer/`. It appears whole or not at all,
and is checked when it is opened (`weights.py`). Folders of a CODI are read in `codi.py`.

Others (nanoGPT and its kin, Hugging Face) store the tensors of a GPT-2 under other names, and a linear map as [in, out] (Hugging
Face, as published) or [out, in] (nanoGPT and its kin, and ours). Wrappers leave prefixes (`_orig_mod.` of torch.compile, `module.`
of DDP, a field of a Lightning module), which are taken off. Nothing is guessed and nothing is left over. Files of torch.save are
read without running their code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor

from workings.config import from_dict, to_dict
from workings.errors import BadInput, listed
from workings.files import describe, read_description
from workings.hub import HubReference, hub_errors, refuse_pointers
from workings.models.configs import GPT2Config
from workings.models.gpt2 import GPT2
from workings.models.pickles import read_saved
from workings.models.weights import WEIGHTS, appearing, fill, plain_names, read_tensors, read_weights, write_tensors
from workings.text.bpe import TOKENIZER_FILE
from workings.text.tokenizer import Tokenizer, Vocabulary

BUNDLED = {"bundled": "recurrent", "bundled-control": "constant"}
GPT2_FAMILY = "workings-gpt2"
# Fields of Hugging Face's config that change what is computed, and the values with which it is what ours computes.
SETTINGS = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}
MAPS = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
BODY, HEAD = "transformer.", "lm_head.weight"
_FIRST_MAP = re.compile(r"(.*?)(?:transformer\.)?h\.0\.attn\.c_attn\.weight")  # what stands before it stands before all
# Causal masks, which old versions stored. They are known by name: a mask that a file calls otherwise is a surplus tensor.
_MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")


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
        refuse_pointers(path)
        return path
    model = HubReference.parse(str(reference))
    if model is None or model.config:
        raise BadInput(f"no checkpoint at {reference}: there is no such file or folder. Check the path.")
    patterns = ["*.json", "*.safetensors", "*.sha256", "*.bin", "*.model", "*.txt", "*.jinja"]
    with hub_errors(str(reference)):
        return Path(snapshot_download(model.name, revision=model.revision, allow_patterns=patterns))


# ── GPT-2 × tokenizer ⇄ our folder ───────────────────────────────────────────────────────────────────────────────────


def save_gpt2(model: GPT2, tokenizer: Tokenizer, folder: str | Path) -> Path:
    """Write a checkpoint of our GPT-2; it appears whole or not at all.

    Raises:
        BadInput: The folder already holds something, or the tokenizer gives ids that the model has no row for.
        Failed: The disk is full.
    """
    check_rows(model.config, tokenizer)
    with appearing(folder) as partial:
        write_tensors(model.state_dict(), partial / WEIGHTS)
        tokenizer.save(partial / "tokenizer")
        describe(partial, "config.json", {"family": GPT2_FAMILY} | to_dict(model.config))
    return Path(folder)


def load_gpt2(folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[GPT2, Tokenizer]:
    """Load what `save_gpt2` wrote, in evaluation mode. BadInput names the tensor or file that is not as it should be."""
    folder = Path(folder)
    if not is_gpt2(folder):
        raise BadInput(f"{folder} is no GPT-2 checkpoint of ours: it has no config.json with the family {GPT2_FAMILY}")
    fields = read_description(folder / "config.json")
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


# ── a GPT-2 from elsewhere ───────────────────────────────────────────────────────────────────────────────────────────


def import_gpt2(
    source: str | Path,
    folder: str | Path,
    *,
    n_heads: int | None = None,
    tokenizer: str | Path | None = None,
    vocabulary: Vocabulary | None = None,
    no_bias: bool = False,
) -> Path:
    """Write a checkpoint folder of ours from a GPT-2 of somebody else's.

    Args:
        source: A file of torch.save or safetensors, a Hugging Face folder, or a hub id.
        folder: Where to write; it appears whole or not at all.
        n_heads: Attention heads, needed where the source does not say.
        tokenizer: A tokenizer folder of ours, or the byte-level BPE to build one on (hub id or path). Without it, the source's
            own, or gpt2.
        vocabulary: What the model was trained to read, needed where its rows do not show it.
        no_bias: It was trained without biases, needed where a file does not say so: they become zeros.

    Raises:
        BadInput: A tensor is missing, left over or not finite, something else is computed, or an argument is needed.
    """
    path = resolve(source)
    if is_gpt2(path):
        raise BadInput(f"{source} is a checkpoint of ours already; there is nothing to import")
    about = _config_in(path) if path.is_dir() else {}
    if path.is_dir() or path.suffix in (".safetensors", ".json"):
        tensors = read_weights(path)
    else:
        tensors, about = read_saved(path)
    state = to_own(tensors, str(source))
    if no_bias or about.get("bias") is False:
        state = with_biases(state, source)
    elif not any(name.endswith(".bias") for name in state):
        raise BadInput(
            f"{source} has no biases at all: if it was trained without (nanoGPT's bias=False), say so with --no-bias"
        )
    model = GPT2(_config_of(state, about, n_heads, source))
    fill(model, state, source)
    reader = _tokenizer_for(path, tokenizer, vocabulary, model.config.vocab)
    return save_gpt2(model, reader, folder)


def _config_of(
    state: Mapping[str, Tensor], about: Mapping[str, Any], n_heads: int | None, source: str | Path
) -> GPT2Config:
    """The shape that tensors of ours have, which must be what the source says about itself."""
    heads = about.get("n_head", n_heads)
    if n_heads not in (None, heads):
        raise BadInput(f"{source} says that it has {heads} attention heads, not {n_heads}: leave --heads out")
    if not isinstance(heads, int):
        width = state["wte.weight"].shape[1] if "wte.weight" in state else 0
        raise BadInput(
            f"{source} does not say how many attention heads it has, and weights do not show it: name them with --heads "
            # 64 numbers a head at each of GPT-2's sizes: to propose, never to assume.
            f"(GPT-2 of width {width} has {max(1, math.ceil(width / 64))})"
        )
    config = config_of(state, heads, str(source))
    in_tensors = {
        "n_layer": config.n_layers,
        "n_embd": config.d_model,
        "vocab_size": config.vocab,
        "block_size": config.block,
        "n_positions": config.block,
    }
    for field, n in in_tensors.items():
        if about.get(field) not in (None, n):
            raise BadInput(
                f"{source} says {field} = {about[field]}, its tensors {n}: tensors are missing, or the config is another model's"
            )
    return config


def _tokenizer_for(path: Path, reference: str | Path | None, vocabulary: Vocabulary | None, n_rows: int) -> Tokenizer:
    own = path if reference is None else Path(reference)
    if (own / TOKENIZER_FILE).is_file():
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


def _config_in(folder: Path) -> dict[str, Any]:
    """What a Hugging Face folder says about its GPT-2. BadInput where that is something else."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder} has no config.json that can be read ({error}): it is no Hugging Face model") from None
    for name, value, ours in unlike_ours(config):
        raise BadInput(f"{folder}/config.json: {name} is {value!r}, our GPT-2 has {ours!r}")
    return {"n_head": 12} | config


# ── layouts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under the names, and in the orientation, that GPT2LMHeadModel loads. The head is left out: it is tied."""
    return {BODY + name: value.T.contiguous() if name.endswith(MAPS) else value for name, value in state.items()}


def to_own(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Another's tensors under our names, in our orientation.

    Which orientation they have is read off the first block's fused map, the only one whose shape tells.

    Raises:
        BadInput: There is a head that is not the embedding, no fused map, or two names for one tensor.
    """
    plain = _plain_names(tensors, source)
    head = plain.pop(HEAD, None)
    if "wte.weight" in plain and head is not None and not torch.equal(head, plain["wte.weight"]):
        raise BadInput(f"{source}: {HEAD} differs from the embedding wte.weight; our GPT-2 has one matrix for both")
    fused = plain.get("h.0.attn.c_attn.weight")
    if fused is None or fused.dim() != 2:
        first = ", ".join(list(plain)[:3]) or "none"
        raise BadInput(f"{source} lacks h.0.attn.c_attn.weight: it is no GPT-2. Its first tensors: {first}")
    if fused.shape[1] == 3 * fused.shape[0]:
        return {name: value.T if name.endswith(MAPS) and value.dim() == 2 else value for name, value in plain.items()}
    return plain


def _plain_names(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Without wrappers' prefixes and causal masks."""
    named = plain_names(tensors, source)
    before = next((found[1] for found in map(_FIRST_MAP.fullmatch, named) if found), "")
    plain: dict[str, Tensor] = {}
    for name, value in named.items():
        short = name.removeprefix(before).removeprefix(BODY)
        if short in plain:
            raise BadInput(f"{source} has two tensors that both mean {short}, one of them {name}")
        plain[short] = value
    return {name: value for name, value in plain.items() if not _MASK.fullmatch(name)}


def unlike_ours(config: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, its value, ours) of a Hugging Face config with which something else is computed. Absent fields are as in ours."""
    wrong = [(name, config[name], ours[0]) for name, ours in SETTINGS.items() if config.get(name, ours[0]) not in ours]
    inner, wanted = config.get("n_inner"), 4 * config.get("n_embd", 768)
    return wrong if inner in (None, wanted) else [*wrong, ("n_inner", inner, wanted)]


def config_of(tensors: Mapping[str, Tensor], n_heads: int, source: str) -> GPT2Config:
    """The config that tensors of ours imply; the number of heads leaves no trace in them."""
    for name in ("wte.weight", "wpe.weight"):
        if name not in tensors or tensors[name].dim() != 2:
            raise BadInput(f"{source} lacks the matrix {name}: it is not a whole GPT-2")
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"h\.(\d+)\.", name))}
    (vocab, d_model), block = tensors["wte.weight"].shape, tensors["wpe.weight"].shape[0]
    return GPT2Config(max(blocks) + 1, n_heads, d_model, block, vocab)


def with_biases(tensors: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Add what nanoGPT's `bias=False` leaves out, as the zeros that it stands for. BadInput where there are biases."""
    if there := [name for name in tensors if name.endswith(".bias")]:
        raise BadInput(
            f"{source} was trained without biases by what it or --no-bias says, and has {listed(there, most=2)}"
        )
    full = dict(tensors)
    for name, value in tensors.items():
        if name.endswith(MAPS) or re.search(r"ln_\w+\.weight", name):
            full.setdefault(name.removesuffix("weight") + "bias", torch.zeros(value.shape[0], dtype=value.dtype))
    return full
