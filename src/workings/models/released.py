"""The tensors of a released CODI ⇄ tensors under our names: PEFT's wrapping, with the LoRA factors added in or taken out.

A released file is the state dict of the official training: the base wrapped by PEFT (`codi.base_model.model.…`, once `coconut.…`),
each adapted weight as `base_layer` beside its factors `lora_A` [r, in] and `lora_B` [out, r], and the projection (`prj.…`).
Under our names a weight is W + alpha / r · B A, computed in fp32, and *adapters* are its factors, as `base.MODULE.lora_A` and
`base.MODULE.lora_B`. The file says r and not alpha.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from workings.errors import BadInput, listed
from workings.models.weights import refuse_incomplete

RELEASED = re.compile(r"^(codi|coconut)\.")
DEFAULT_ALPHA = 32.0
_WRAPPED = "codi.base_model.model."
_AUXILIARY = re.compile(r"decoder\.|pj_|expainable_llm\.")  # of other trainings that save in this layout
_CONV1D = ("c_attn", "c_proj", "c_fc")  # GPT-2's; they keep their weight as [in, out], a linear layer as [out, in]


@dataclass(frozen=True)
class Unwrapped:
    """The tensors of a released file under our names, its adapters, and the alpha that was used; None where it has none."""

    tensors: dict[str, Tensor]
    adapters: dict[str, Tensor]
    alpha: float | None


def unwrap(tensors: Mapping[str, Tensor], alpha: float | None, source: Path) -> Unwrapped:
    """Released names → ours, each pair of factors added to its weight. Warns of a guessed alpha and of tensors left out.

    Raises:
        BadInput: A factor or the weight it belongs to is missing.
    """
    plain: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    dropped: list[str] = []
    for key, tensor in tensors.items():
        unwrapped = RELEASED.sub("", key)
        name = unwrapped.removeprefix("base_model.model.")
        if _AUXILIARY.match(unwrapped):
            dropped.append(unwrapped)
        elif factor := re.fullmatch(r"(.+)\.lora_([AB])\.default\.weight", name):
            pairs.setdefault(factor[1], {})[factor[2]] = tensor
        else:
            plain[name.replace(".base_layer.", ".")] = tensor
    if dropped:
        warnings.warn(
            f"{source}: {len(dropped)} tensor(s) of an auxiliary decoder are ignored: {listed(dropped)}", stacklevel=4
        )
    scale = DEFAULT_ALPHA if alpha is None else alpha
    if pairs and alpha is None:
        warnings.warn(
            f"{source} does not say its lora_alpha; {scale:g} is used (the released value). Set --lora-alpha.",
            stacklevel=4,
        )
    adapters = {}
    for name, pair in pairs.items():
        if f"{name}.weight" not in plain:
            refuse_incomplete(source, missing=[f"{name}.base_layer.weight"])
        if pair.keys() != {"A", "B"}:
            refuse_incomplete(source, missing=[f"{name}.lora_{'B' if 'A' in pair else 'A'}.default.weight"])
        plain[f"{name}.weight"] = plain[f"{name}.weight"].float() + _delta(name, pair["A"], pair["B"], scale)
        adapters |= {f"base.{name}.lora_{factor}": pair[factor] for factor in "AB"}
    named = {name if name.startswith("prj.") else f"base.{name}": value for name, value in plain.items()}
    return Unwrapped(named, adapters, scale if pairs else None)


def wrap(
    tensors: Mapping[str, Tensor], adapters: Mapping[str, Tensor], alpha: float | None, lora_targets: Collection[str]
) -> dict[str, Tensor]:
    """Our names → the released ones, the factors taken out of the weights in fp32: the inverse of `unwrap`.

    Args:
        tensors: The state dict of a CODI, whose weights have the adapters in them.
        adapters: Its adapters; there may be none.
        alpha: The alpha that they were added with.
        lora_targets: Last names of the modules that PEFT wraps, adapted or not.

    Raises:
        BadInput: An adapter is of a module that is not there, lacks its other factor, or no alpha is known.
    """
    modules = {name.rpartition(".")[0] for name in adapters}
    if modules and alpha is None:
        raise BadInput(
            "the model has LoRA factors and no lora_alpha in its thinking.json: write down the one it was trained with"
        )
    refuse_incomplete(
        "the model",
        missing=[f"{m}.{part}" for m in modules for part in ("lora_A", "lora_B") if f"{m}.{part}" not in adapters]
        + [f"{m}.weight" for m in modules if f"{m}.weight" not in tensors],
    )
    found = {}
    for name, value in tensors.items():
        value = value.detach().cpu()
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" and module in modules:
            value = value.float() - _delta(
                module, adapters[f"{module}.lora_A"], adapters[f"{module}.lora_B"], alpha or 0.0
            )
        inner = module.removeprefix("base.")
        if module.rpartition(".")[2] in lora_targets:
            inner += ".base_layer"
        found[name if name.startswith("prj.") else f"{_WRAPPED}{inner}.{leaf}"] = (
            value.clone()
        )  # a tied head stands twice
    for name, factor in adapters.items():
        found[f"{_WRAPPED}{name.removeprefix('base.')}.default.weight"] = factor.detach().cpu()
    return found


def _delta(module: str, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """What a pair of factors adds to the weight of its module, fp32."""
    delta = b.cpu().float() @ a.cpu().float() * alpha / len(a)
    return delta.T if module.rpartition(".")[2] in _CONV1D else delta  # by name, for a square one has no shape to tell
