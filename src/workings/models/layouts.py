"""Tensors of a GPT-2 as others store them ⇄ as ours are named. Nothing is guessed and nothing is left over.

Hugging Face's layout is the published one, in which a linear map stores [in, out]; nanoGPT and its kin store [out, in], as
torch does. Wrappers leave prefixes (`_orig_mod.` of torch.compile, `module.` of DDP), which are taken off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.configs import GPT2Config

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
_WRAPPER = re.compile(r"(^|\.)_orig_mod\.|^module\.")
# Causal masks, which old versions stored. They are known by name: a mask that a file calls otherwise is an extra tensor.
_MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under the names, and in the orientation, that GPT2LMHeadModel loads. The head is left out: it is tied."""
    return {BODY + name: value.T.contiguous() if name.endswith(MAPS) else value for name, value in state.items()}


def to_own(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Another's tensors under our names, in our orientation. BadInput for a head that is not the embedding.

    Which orientation they have is read off the first block's fused map, the only one whose shape tells.
    """
    plain = _plain_names(tensors, source)
    head = plain.pop(HEAD, None)
    if "wte.weight" in plain and head is not None and not torch.equal(head, plain["wte.weight"]):
        raise BadInput(f"{source}: {HEAD} differs from the embedding wte.weight; our GPT-2 has one matrix for both")
    fused = plain.get("h.0.attn.c_attn.weight")
    if fused is None or fused.dim() != 2:
        raise BadInput(f"{source} lacks h.0.attn.c_attn.weight: it is no GPT-2. Its first tensors: {_first(plain)}")
    if fused.shape[1] == 3 * fused.shape[0]:
        return {name: value.T if name.endswith(MAPS) and value.dim() == 2 else value for name, value in plain.items()}
    return plain


def _plain_names(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        short = name
        while _WRAPPER.search(short):
            short = _WRAPPER.sub(r"\1", short)
        short = short.removeprefix(BODY)
        if short in plain:
            raise BadInput(f"{source} has two tensors that both mean {short}, one of them {name}")
        plain[short] = value
    return {name: value for name, value in plain.items() if not _MASK.fullmatch(name)}


def unlike_ours(config: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(field, its value, ours) of a Hugging Face config with which something else is computed. Absent fields are as in ours."""
    wrong = [(name, config[name], ours[0]) for name, ours in SETTINGS.items() if config.get(name, ours[0]) not in ours]
    inner, wanted = config.get("n_inner"), 4 * config.get("n_embd", 768)
    return wrong if inner in (None, wanted) else [*wrong, ("n_inner", inner, wanted)]


def shape_of(tensors: Mapping[str, Tensor], n_heads: int, source: str) -> GPT2Config:
    """The config that our tensors imply; the number of heads leaves no trace in them."""
    for name in ("wte.weight", "wpe.weight"):
        if name not in tensors or tensors[name].dim() != 2:
            raise BadInput(f"{source} lacks the matrix {name}: it is not a whole GPT-2")
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"h\.(\d+)\.", name))}
    (vocab, d_model), block = tensors["wte.weight"].shape, tensors["wpe.weight"].shape[0]
    return GPT2Config(max(blocks) + 1, n_heads, d_model, block, vocab)


def contradictions(about: Mapping[str, Any], shape: GPT2Config) -> list[tuple[str, Any, int]]:
    """(field, its value, the tensors') of a config, nanoGPT's or Hugging Face's, that is of another model."""
    real = {
        "n_layer": shape.n_layers,
        "n_embd": shape.d_model,
        "vocab_size": shape.vocab,
        "block_size": shape.block,
        "n_positions": shape.block,
    }
    return [(field, about[field], n) for field, n in real.items() if about.get(field) not in (None, n)]


def with_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What nanoGPT's `bias=False` leaves out, as the zeros that it stands for."""
    full = dict(tensors)
    for name, value in tensors.items():
        if name.endswith(MAPS) or re.search(r"ln_\w+\.weight", name):
            full.setdefault(name.removesuffix("weight") + "bias", torch.zeros(value.shape[0], dtype=value.dtype))
    return full


def plausible_heads(d_model: int) -> int:
    """What GPT-2 has at each of its sizes: 64 numbers a head. To propose, never to assume."""
    return max(1, math.ceil(d_model / 64))


def _first(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:3]) or "none"
