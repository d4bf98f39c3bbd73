"""LoRA factors as PEFT saves them → weights with the factors added in.

A module that was adapted keeps its weight as `base_layer`, beside the factors `lora_A` [r, in] and `lora_B` [out, r] of a named
adapter; what was trained as a whole stands under `modules_to_save`. `adapter_config.json` says with which scale a factor pair
counts, in general alpha / r. A module's weight becomes W + scale · B A, computed in fp32.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from workings.errors import BadInput, listed
from workings.models.weights import ADAPTER_WEIGHTS, refuse_incomplete

CONFIG = "adapter_config.json"
_CONV1D = ("c_attn", "c_proj", "c_fc")  # GPT-2's; they keep their weight as [in, out], a linear layer as [out, in]
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(\.(?P<adapter>[^.]+))?\.weight")
_WHOLE = re.compile(r"\.modules_to_save\.[^.]+\.")

# Fields of adapter_config.json that are obeyed, or that the tensors themselves show, or that only training reads.
_KNOWN = {
    *("r", "lora_alpha", "use_rslora", "alpha_pattern", "rank_pattern", "base_model_name_or_path", "init_lora_weights"),
    *("peft_type", "task_type", "peft_version", "auto_mapping", "revision", "inference_mode", "lora_dropout", "bias"),
    *(
        "target_modules",
        "exclude_modules",
        "modules_to_save",
        "layers_to_transform",
        "layers_pattern",
        "fan_in_fan_out",
    ),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config", "ephemeral_gpu_offload"),
    *("megatron_core", "qalora_group_size", "ensure_weight_tying"),
}
# Ways to begin that take something out of the base's weights, which the base from elsewhere still has.
_CHANGES_BASE = re.compile(r"pissa|olora|loftq|corda|lora_ga", re.IGNORECASE)


@dataclass(frozen=True)
class AdapterConfig:
    """With which scale each module's factors count. `rank` and `ranks` are checked against the factors."""

    alpha: float
    rank: int | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)  # by a pattern of modules' names
    ranks: Mapping[str, int] = field(default_factory=dict)
    rank_stabilised: bool = False  # alpha / √r instead of alpha / r
    base: str | None = None  # what the adapter was made for
    changes_base: bool = False  # the factors belong to a base whose weights were changed when they were made
    source: Path | None = None

    @classmethod
    def beside(cls, weights: Path) -> AdapterConfig | None:
        """The adapter_config.json in a folder of weights, or beside a file; None where there is none.

        Raises:
            BadInput: It cannot be read, or sets something that is not supported; the message names the field.
        """
        file = (weights if weights.is_dir() else weights.parent) / CONFIG
        if not file.is_file():
            return None
        try:
            fields = json.loads(file.read_text("utf-8"))
            _refuse_unknown(fields, file)
            return cls(
                alpha=float(fields.get("lora_alpha", 8)),
                rank=int(fields["r"]) if "r" in fields else None,
                alphas={str(name): float(alpha) for name, alpha in (fields.get("alpha_pattern") or {}).items()},
                ranks={str(name): int(rank) for name, rank in (fields.get("rank_pattern") or {}).items()},
                rank_stabilised=bool(fields.get("use_rslora")),
                base=fields.get("base_model_name_or_path"),
                changes_base=bool(_CHANGES_BASE.match(str(fields.get("init_lora_weights")))),
                source=file,
            )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"{file} cannot be read as the config of a LoRA adapter ({error}): save it again") from None

    def scale(self, module: str, rank: int) -> float:
        """What B A is multiplied with for a module whose factors have this rank. BadInput where the config says another."""
        expected = _of_module(self.ranks, module, self.rank)
        if expected not in (None, rank):
            raise BadInput(
                f"{self.source} says that {module} has rank {expected}, its factors have {rank}: another adapter's?"
            )
        alpha = _of_module(self.alphas, module, self.alpha)
        return alpha / (rank**0.5 if self.rank_stabilised else rank)


def _of_module(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that a module's name ends in, as PEFT matches them."""
    if not patterns:
        return default
    from peft.utils.other import get_pattern_key

    return patterns.get(get_pattern_key(list(patterns), module), default)


def _refuse_unknown(fields: Mapping[str, Any], file: Path) -> None:
    asked = {name: value for name, value in fields.items() if name not in _KNOWN and value not in (None, False, [], {})}
    if fields.get("peft_type") not in (None, "LORA"):
        asked["peft_type"] = fields["peft_type"]
    if fields.get("bias") not in (None, "none"):
        asked["bias"] = fields["bias"]
    for name, value in asked.items():
        raise BadInput(
            f"{file}: {name} is {str(value)[:40]!r}, which is not supported here; merge the adapter with PEFT "
            "(merge_and_unload) and give the whole model"
        )


def is_adapter(path: Path) -> bool:
    """Whether a folder is one that PEFT writes: an adapter without its base."""
    return (path / CONFIG).is_file() and any((path / name).is_file() for name in ADAPTER_WEIGHTS)


Factors = dict[str, dict[str, Tensor]]
"""Of each adapted module, under "A" and "B"."""


def unpacked(tensors: Mapping[str, Tensor], source: str | Path) -> tuple[dict[str, Tensor], Factors]:
    """Tensors named as PEFT names them → the base's own names, and the factors of each module.

    Raises:
        BadInput: There is more than one adapter, or a pair lacks one of its factors.
    """
    plain: dict[str, Tensor] = {}
    pairs: Factors = {}
    adapters = set()
    for key, tensor in tensors.items():
        name = key.removeprefix("base_model.model.")
        if factor := _FACTOR.fullmatch(name):
            pairs.setdefault(factor["module"], {})[factor["factor"]] = tensor
            adapters.add(factor["adapter"] or "default")
        elif ".original_module." not in name:  # what modules_to_save has taken the place of
            plain[_WHOLE.sub(".", name).replace(".base_layer.", ".")] = tensor
    if len(adapters) > 1:
        raise BadInput(f"{source} holds {len(adapters)} adapters ({listed(adapters)}): save it with one of them")
    refuse_incomplete(
        source,
        missing=[
            f"{name}.lora_{factor}.{next(iter(adapters))}.weight"
            for name, pair in pairs.items()
            for factor in {"A", "B"} - pair.keys()
        ],
    )
    return plain, pairs


def merge(weights: dict[str, Tensor], pairs: Factors, config: AdapterConfig, source: str | Path) -> dict[str, Tensor]:
    """Add each pair of factors to its weight, in place.

    Returns:
        The factors as `MODULE.lora_A` and `MODULE.lora_B`. Where a scale is not alpha / r, lora_B is multiplied by the ratio, so
        that all of them count with alpha / r.

    Raises:
        BadInput: A weight is missing, or has another shape than its factors.
    """
    refuse_incomplete(
        source, missing=[f"{name}.base_layer.weight" for name in pairs if f"{name}.weight" not in weights]
    )
    factors = {}
    for name, pair in pairs.items():
        a, b = pair["A"], pair["B"]
        ratio = config.scale(name, len(a)) / (config.alpha / len(a)) if config.alpha else 1.0
        b = b if ratio == 1 else b.float() * ratio
        weight, added = weights[f"{name}.weight"], delta(name, a, b, config.alpha)
        refuse_incomplete(
            source,
            misshapen={}
            if weight.shape == added.shape
            else {f"{name}.lora_B @ lora_A": (tuple(added.shape), tuple(weight.shape))},
        )
        weights[f"{name}.weight"] = weight.float() + added.to(weight.device)
        factors |= {f"{name}.lora_A": a, f"{name}.lora_B": b}
    return factors


def delta(module: str, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """What a pair of factors adds to the weight of its module, fp32."""
    added = b.cpu().float() @ a.cpu().float() * alpha / len(a)
    return added.T if module.rpartition(".")[2] in _CONV1D else added  # by name, for a square one has no shape to tell
