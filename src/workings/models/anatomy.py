"""Where an architecture keeps its parts: an explicit table by `config.model_type`, and the unembedding every lens shares.

Nothing here guesses. A model type that is not in the table is an error that lists those which are, because a lens built on the
wrong norm reads plausible nonsense. So is a device that this machine lacks: nothing falls back to another.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workings.errors import BadInput


@dataclass(frozen=True)
class Anatomy:
    """Dotted paths, from a Hugging Face causal language model, to the parts we touch.

    `windows` says which blocks a sliding window narrows, if the config has one: none, all, or those that `layer_types` names.
    """

    backbone: str
    embedding: str
    blocks: str
    final_norm: str
    lora_targets: tuple[str, ...]
    windows: Literal["none", "all", "typed"] = "none"


_LLAMA = Anatomy(
    backbone="model",
    embedding="model.embed_tokens",
    blocks="model.layers",
    final_norm="model.norm",
    lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
)
_GPT2 = Anatomy(
    backbone="transformer",
    embedding="transformer.wte",
    blocks="transformer.h",
    final_norm="transformer.ln_f",
    lora_targets=("c_attn", "c_proj", "c_fc"),
)
_GPT_NEOX = Anatomy(
    backbone="gpt_neox",
    embedding="gpt_neox.embed_in",
    blocks="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    lora_targets=("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
)
_WINDOWED = replace(_LLAMA, windows="all")
_TYPED = replace(_LLAMA, windows="typed")
ANATOMIES = {
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "mistral": _WINDOWED,
    "qwen2": _TYPED,
    "qwen3": _TYPED,
    # The experts of a block are one tensor, which LoRA does not wrap.
    "qwen3_moe": replace(_WINDOWED, lora_targets=("q_proj", "k_proj", "v_proj", "o_proj")),
    "gemma": _LLAMA,
    "gemma2": _TYPED,
    "gemma3_text": _TYPED,
    "phi3": replace(_WINDOWED, lora_targets=("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
    "smollm3": _TYPED,
    "granite": _LLAMA,
    "gpt_neox": _GPT_NEOX,
}
HEAD = "lm_head"  # of every family in the table


def anatomy_of(config: Any) -> Anatomy:
    """The anatomy of a Hugging Face config, by its `model_type`.

    Raises:
        BadInput: The type is not in the table. Add a row to `ANATOMIES`, and its family to the parity tests.
    """
    found = ANATOMIES.get(config.model_type)
    if found is None:
        raise BadInput(
            f"model family '{config.model_type}' is not known here; known: {', '.join(ANATOMIES)}. "
            "Use a model of one of these families, or add its row to workings/models/anatomy.py."
        )
    return found


class Unembedding(nn.Module):
    """Final norm and output head of a model, frozen: residual state → logits over the vocabulary.

    Args:
        norm: The final norm.
        weight: Rows of the head [V, d], divided by whatever the model divides its logits by.
        cap: Bound of soft-capped logits, cap · tanh(logit / cap); None where they are not capped.
    """

    def __init__(self, norm: nn.Module, weight: Tensor, cap: float | None = None):
        super().__init__()
        self.norm, self.cap = norm, cap
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)

    def forward(self, h: Tensor, normed: bool = False) -> Tensor:
        """Logits [..., V] of states h [..., d]; `normed`: they are past the final norm already, as `final_norm` states are."""
        return soft_capped(F.linear(h if normed else self.norm(h), self.weight), self.cap)

    @property
    def digest(self) -> str:
        """sha256 of the head and the norm's parameters, so that a lens can name what it was fitted on."""
        sha = hashlib.sha256()
        for tensor in (self.weight, *self.norm.state_dict().values()):
            sha.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        if self.cap is not None:
            sha.update(f"cap {self.cap:g}".encode())
        return sha.hexdigest()


def soft_capped(logits: Tensor, cap: float | None) -> Tensor:
    """cap · tanh(logits / cap); the logits themselves where there is no cap."""
    return logits if cap is None else cap * torch.tanh(logits / cap)


def layer_names(n_layers: int) -> tuple[str, ...]:
    """`embed, block1, …, block{L-1}, final_norm`: the L + 1 states of Hugging Face's `hidden_states`, in order.

    The last of them is block L *after* the final norm (true of GPT-2's `ln_f` and Llama's `norm`), hence its name.
    """
    return ("embed", *(f"block{i}" for i in range(1, n_layers)), "final_norm")


def position_names(n_thoughts: int) -> tuple[str, ...]:
    """`bot, t1, …, tK`: the opening token and the K thoughts."""
    return ("bot", *(f"t{k}" for k in range(1, n_thoughts + 1)))


QUESTION = "question"  # the position that stands for the mean state over the question's own tokens


def is_thought(position: str) -> bool:
    """Whether a position is a thought: `t1`, `t2`, …. Every other one is before the first thought."""
    return re.fullmatch(r"t[1-9]\d*", position) is not None


@dataclass(frozen=True)
class Edit:
    """Replace the state after one block (or the final norm) at the position being computed.

    `layer` is `block1` … `blockL` or `final_norm`; `value` maps the state [n, d] to its replacement [n, d]. An edit of a block
    also changes everything above it; to change what is fed, pass `z` to `ThoughtModel.step`.
    """

    layer: str
    value: Callable[[Tensor], Tensor]


@contextmanager
def edited(model: Any, edits: Sequence[Edit]) -> Generator[None]:
    """Inside, a causal language model computes with the edits; its hooks are removed again whatever happens.

    They come before any other hook, so that what is recorded is the edited state.

    Raises:
        BadInput: There is no such layer.
    """
    if not edits:  # as in nearly every step: nothing to look up
        yield
        return
    anatomy = anatomy_of(model.config)
    sites = {f"block{i + 1}": block for i, block in enumerate(model.get_submodule(anatomy.blocks).children())}
    sites["final_norm"] = model.get_submodule(anatomy.final_norm)
    unknown = [edit.layer for edit in edits if edit.layer not in sites]
    if unknown:
        raise BadInput(f"no layer '{unknown[0]}' to edit; there are {', '.join(sites)}")

    def replacing_last(edit: Edit) -> Callable[[nn.Module, object, Tensor], Tensor]:
        return lambda _module, _inputs, out: torch.cat([out[:, :-1], edit.value(out[:, -1])[:, None]], 1)

    handles = [sites[edit.layer].register_forward_hook(replacing_last(edit), prepend=True) for edit in edits]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def count_parameters(model: nn.Module) -> int:
    """Number of distinct parameters (tied weights count once)."""
    return sum(p.numel() for p in model.parameters())


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def device_of(name: str) -> str:
    """The device that a word of the command line names; `auto` is a GPU if there is one, else the CPU.

    Raises:
        BadInput: There is no such device, or not on this machine.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if name not in there:
        raise BadInput(f"no device '{name}'; there are auto, {', '.join(there)}")
    if not there[name]:
        raise BadInput(f"this machine has no {name} that torch can use; take --device auto or cpu")
    return name


def dtype_of(precision: str) -> torch.dtype:
    """The number format that `fp32` or `bf16` names. BadInput for another word."""
    if precision not in DTYPES:
        raise BadInput(f"no precision '{precision}'; there are {', '.join(DTYPES)}")
    return DTYPES[precision]
