"""A file of torch.save → its tensors and what it says about its model, without running any of its code.

torch's own reader of tensors builds nothing but tensors and plain values. Trainers also save settings: objects of their own
classes, paths, numbers of numpy. Each of these gets a *stand-in* that holds what was pickled and does nothing. A function that
the file wants called is another matter: such a file is refused.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workings.errors import BadInput, first_line

_WEIGHTS = ("model", "state_dict", "module")  # where nanoGPT, Lightning and DeepSpeed put their tensors
_SETTINGS = (("config", "model_args"), ("args", "hyper_parameters"))  # the second pair only without the first


def read_saved(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of torch.save without running code from it.

    Returns:
        Its tensors (at the top of the file, or under `model`, `state_dict` or `module`), and what it says about its model
        (`config` and `model_args`, else `args` and `hyper_parameters`, as plain fields even where they were objects).

    Raises:
        BadInput: The file needs code to be read, cannot be read, or holds no mapping of tensors.
    """
    content = read_pickle(file)
    if not isinstance(content, Mapping):
        raise BadInput(
            f"{file} holds a whole {type(content).__name__.strip('_').lower()}, not a mapping of tensors{_ADVICE}"
        )
    tensors = next((content[name] for name in _WEIGHTS if isinstance(content.get(name), Mapping)), content)
    if not all(isinstance(value, Tensor) for value in tensors.values()):
        raise BadInput(
            f"{file} holds no mapping of tensors, neither at its top nor under {', '.join(_WEIGHTS)}{_ADVICE}"
        )
    about: dict[str, Any] = {}
    for names in _SETTINGS:
        for said in map(content.get, names if not about else ()):
            about |= said if isinstance(said, Mapping) else getattr(said, "__dict__", {})
    return {str(name): value for name, value in tensors.items()}, about


_ADVICE = ". Where it was trained, save the weights alone: torch.save({'model': model.state_dict()}, file)"


def read_pickle(file: Path) -> object:
    """What a file of torch.save holds, with stand-ins for objects of foreign classes. BadInput as in `read_saved`."""
    try:
        zipped = zipfile.is_zipfile(file)  # files of older torch are read if they hold plain values only
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(file)) if zipped else []
        stand_ins = {name: _stand_in(name) for name in names}
        if called := sorted(name for name, stand_in in stand_ins.items() if stand_in is None):
            raise BadInput(
                f"{file} holds Python objects ({', '.join(called[:3])}) beside its weights: loading them could run any "
                f"code, so it is refused{_ADVICE}"
            )
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in stand_ins.items()]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its text advises to load without safeguards
        raise BadInput(
            f"{file} is no file of torch.save that can be read safely: it is damaged, or holds code"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(f"{file} is no file of torch.save that can be read safely: {first_line(error)}") from error


# ── stand-ins ────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Object:
    """For an instance of any class: holds its fields, runs none of its code."""

    def __init__(self, *given: object) -> None:
        self.given = given

    def __new__(cls, *_: object) -> _Object:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            self.__dict__.update(part if isinstance(part, dict) else {})


class _Mapping:
    """For a mapping of any class: a plain one, because torch's reader puts items into nothing else."""

    def __new__(cls, *_: object) -> dict[Any, Any]:
        return {}


class _DType:
    """For a dtype of numpy: its code, as in `f4`, and its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


def _scalar(dtype: object, data: object = b"") -> object:
    """For a scalar of numpy: the number, or None where it is none."""
    if not isinstance(dtype, _DType) or not isinstance(data, bytes) or not re.fullmatch(r"[biufc]\d+", dtype.code):
        return None
    order = dtype.order if dtype.order in ("<", ">") else "="
    return np.frombuffer(data, np.dtype(order + dtype.code))[0].item()


_CLASS = re.compile(
    r".*\._*[A-Z]\w*"  # by its spelling
    r"|numpy\.(ndarray|(bool|u?int|float|complex)\w*)|datetime\.\w+|builtins\.(int|float|str|bool|list|dict|tuple|bytes)"
)
_ARRAY = re.compile(r"numpy\.\w+\.multiarray\.(\w+)")


def _stand_in(name: str) -> Any:
    """What takes the place of a global that a pickle names; None for a function, which it would have called."""
    if name == "numpy.dtype":
        return _DType
    if array := _ARRAY.fullmatch(name):
        return {"scalar": _scalar, "_reconstruct": _Object}.get(array[1])
    if name.lower().endswith("dict"):
        return _Mapping
    return _Object if _CLASS.fullmatch(name) else None
