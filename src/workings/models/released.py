"""The tensors of a released CODI ⇄ tensors under our names: PEFT's wrapping, with the LoRA factors added in or taken out.

A released file is the state dict of the official training: the base wrapped by PEFT (`codi.base_model.model.…`, once `coconut.…`),
with or without what a training framework put before these names, and the projection (`prj.…`). Under our names the factors are
in the weights (`adapters.py`), and *adapters* are the factors, as `base.MODULE.lora_A` and `base.MODULE.lora_B`. The file says
their rank and not their alpha; an adapter_config.json beside it does.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from torch import Tensor

from workings.errors import BadInput, listed
from workings.models.adapters import AdapterConfig, delta, unpacked
from workings.models.weights import plain_names, refuse_incomplete

DEFAULT_ALPHA = 32.0
_RELEASED = re.compile(r"(?P<before>([^.]+\.)*?)(codi|coconut)\.")
_WRAPPED = "codi.base_model.model."
_AUXILIARY = re.compile(r"decoder\.|pj_|expainable_llm\.")  # of other trainings that save in this layout


def is_released(names: Iterable[str]) -> bool:
    """Whether tensors of these names are those of a released CODI."""
    return any(map(_RELEASED.match, names))


def unpack(
    tensors: Mapping[str, Tensor], source: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Released names → the base's tensors, the projection's (`prj.…`), and the factors of each module. Warns of what is left out.

    Raises:
        BadInput: A factor is missing, or there are several adapters.
    """
    named = plain_names(tensors, source)
    before = next((found["before"] for found in map(_RELEASED.match, named) if found), "")
    inner = {re.sub(r"^(codi|coconut)\.", "", name.removeprefix(before)): value for name, value in named.items()}
    if dropped := [name for name in inner if _AUXILIARY.match(name)]:
        warnings.warn(
            f"{source}: {len(dropped)} tensor(s) of an auxiliary decoder are ignored: {listed(dropped)}", stacklevel=4
        )
    projection = {name: value for name, value in inner.items() if name.startswith("prj.")}
    base, pairs = unpacked({k: v for k, v in inner.items() if k not in {*dropped, *projection}}, source)
    return base, projection, pairs


def adapter_config(file: Path, alpha: float | None, has_factors: bool) -> AdapterConfig:
    """How the factors in a file of weights count: as the config beside it says, with `alpha`, or with a guess and a warning.

    Raises:
        BadInput: The config sets something unsupported, or says another alpha than the one given.
    """
    said = AdapterConfig.beside(file)
    if said is not None:
        if alpha not in (None, said.alpha):
            raise BadInput(
                f"{said.source} says lora_alpha = {said.alpha:g}, and {alpha:g} was given: leave --lora-alpha out"
            )
        return said
    if alpha is None and has_factors:
        warnings.warn(
            f"{file} does not say its lora_alpha; {DEFAULT_ALPHA:g} is used (the released value). Set --lora-alpha.",
            stacklevel=4,
        )
    return AdapterConfig(DEFAULT_ALPHA if alpha is None else alpha)


def wrap(
    tensors: Mapping[str, Tensor], adapters: Mapping[str, Tensor], alpha: float | None, lora_targets: Collection[str]
) -> dict[str, Tensor]:
    """Our names → the released ones, the factors taken out of the weights in fp32: the inverse of `unpack` and `merge`.

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
            value = value.float() - delta(
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
