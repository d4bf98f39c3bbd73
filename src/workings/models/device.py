"""A word from the command line → the device and number format to compute in; what is not there is an error, not a fall-back."""

from __future__ import annotations

import torch

from workings.errors import BadInput

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def device_of(name: str) -> str:
    """`auto` is a GPU if there is one, else the CPU. BadInput for a device this machine has not."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if name not in there:
        raise BadInput(f"no device '{name}'; there are auto, {', '.join(there)}")
    if not there[name]:
        raise BadInput(f"this machine has no {name} that torch can use; take --device auto or cpu")
    return name


def dtype_of(precision: str) -> torch.dtype:
    """`fp32` or `bf16`."""
    if precision not in DTYPES:
        raise BadInput(f"no precision '{precision}'; there are {', '.join(DTYPES)}")
    return DTYPES[precision]
