"""A tuned lens ⇄ a folder as the tuned-lens library (Belrose et al. 2023) saves and opens them.

    config.json    base model, width, number of blocks, a hash of the unembedding
    params.pt      `i.weight` and `i.bias` of the translator of `hidden_states[i]`: 0 is the embedding, the last one is left out

Its translators are ours: h + A h + b before the model's own final norm and head, none at `final_norm`, one for all positions. What
that format cannot hold is refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workings.errors import BadInput
from workings.files import read_description, to_json
from workings.models.anatomy import Unembedding
from workings.models.pickles import read_saved
from workings.models.weights import appearing, refuse_incomplete, refuse_not_finite
from workings.reading.lens import Lens, Readable
from workings.reading.lens_kinds import TunedLens
from workings.reading.store import FINAL_NORM

_TYPE = "linear_tuned_lens"


def export_to_library(lens: Lens, folder: str | Path, base: str, n_layers: int) -> Path:
    """Write a lens as the tuned-lens library saves one.

    Args:
        lens: A tuned lens for every layer of its model, without a translator at `final_norm`.
        folder: A new folder; it appears whole or not at all.
        base: Name or path of the model, which goes into config.json.
        n_layers: Blocks of the model.

    Raises:
        BadInput: The library's format cannot hold this lens.
    """
    layers = ("embed", *(f"block{i}" for i in range(1, n_layers)))
    if type(lens) is not TunedLens:
        raise BadInput(f"the tuned-lens library has no {lens.name}: it holds one translator a layer, for all positions")
    if lens.final_norm:
        raise BadInput(f"the tuned-lens library has no translator at {FINAL_NORM}; fit the lens without it")
    if lens.translated != layers:
        raise BadInput(
            f"the tuned-lens library holds a translator for each of {', '.join(layers)}; this lens has {', '.join(lens.translated)}"
        )
    config = {
        "base_model_name_or_path": base,
        "d_model": lens.bias.shape[1],
        "num_hidden_layers": n_layers,
        "bias": True,
        "base_model_revision": None,
        "unembed_hash": unembedding_hash(lens.unembedding),
        "lens_type": _TYPE,
    }
    state = {}
    for i in range(n_layers):
        state |= {
            f"{i}.weight": lens.weight[i].detach().cpu().clone(),
            f"{i}.bias": lens.bias[i].detach().cpu().clone(),
        }
    with appearing(folder) as partial:
        torch.save(state, partial / "params.pt")
        (partial / "config.json").write_text(to_json(config))
    return Path(folder)


def import_from_library(folder: str | Path, model: Readable) -> TunedLens:
    """Open a folder that the tuned-lens library saved, for the model that it was fitted on. No code of the file is run.

    Raises:
        BadInput: Files are missing or damaged, or the lens is for a model of another shape or with another unembedding.
    """
    folder = Path(folder)
    config, params = folder / "config.json", folder / "params.pt"
    for file in (config, params):
        if not file.is_file():
            raise BadInput(f"{folder} is no folder of the tuned-lens library: it has no {file.name}")
    about = read_description(config)
    _refuse_other(about, config, model)
    tensors, _ = read_saved(params)
    lens = TunedLens.of(model)
    n_layers, width = lens.bias.shape
    wanted: dict[str, tuple[int, ...]] = {f"{i}.weight": (width, width) for i in range(n_layers)}
    wanted |= {f"{i}.bias": (width,) for i in range(n_layers)} if about.get("bias", True) else {}
    misshapen = {
        name: (tuple(tensors[name].shape), shape)
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    }
    refuse_incomplete(params, wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys(), misshapen)
    refuse_not_finite(params, tensors)
    with torch.no_grad():
        for i in range(n_layers):
            lens.weight[i] = tensors[f"{i}.weight"]
            if f"{i}.bias" in tensors:
                lens.bias[i] = tensors[f"{i}.bias"]
    return lens


def _refuse_other(about: dict[str, Any], config: Path, model: Readable) -> None:
    if about.get("lens_type", _TYPE) != _TYPE:
        raise BadInput(f"{config}: lens_type is {about['lens_type']!r}, and only {_TYPE} is known")
    n_layers, width = len(model.layers) - 1, model.unembedding.weight.shape[1]
    for field, own in (("d_model", width), ("num_hidden_layers", n_layers)):
        if about.get(field) != own:
            raise BadInput(
                f"{config}: {field} is {about.get(field)}, and the model given has {own}: it is another model's lens"
            )
    said = about.get("unembed_hash")
    if said and said != unembedding_hash(model.unembedding):
        raise BadInput(
            f"{config}: the lens was fitted under another unembedding ({said[:12]}) than the model given has "
            f"({unembedding_hash(model.unembedding)[:12]})"
        )


def unembedding_hash(unembedding: Unembedding) -> str:
    """The library's own hash of a head: of what numpy prints of it with one decimal."""
    weight = unembedding.weight.detach().float().cpu().numpy()
    return hashlib.sha256(np.array_str(weight, precision=1).encode()).hexdigest()
