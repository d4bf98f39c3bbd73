"""A lens ⇄ a folder: its parameters, and what they are for.

lens.json           kind and options, model and head by digest, layers, positions, recipe and data of the fit; vouches for itself
lens.safetensors    the parameters
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from workings.config import from_dict
from workings.errors import BadInput
from workings.files import (
    changes,
    drop_half_written,
    read_sealed,
    sealed,
    sha256_of,
    unchanged,
    write_atomic,
    write_with,
)
from workings.provenance import versions
from workings.reading.lens import Fitted, Lens, Readable
from workings.reading.lens_kinds import KINDS
from workings.reading.manifest import disk_errors

FORMAT = 2  # 1 had tuned lenses only, shared by the positions and without a translator at final_norm
_WEIGHTS = "lens.safetensors"
_REMEDY = "copy the lens again, or fit it again"


def save_lens(lens: Lens, folder: str | Path) -> Path:
    """Write `lens.safetensors`, then `lens.json`: without the second there is no lens in the folder."""
    folder = Path(folder)
    weights = folder / _WEIGHTS
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in lens.state_dict().items()}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        drop_half_written(folder)
        (folder / "lens.json").unlink(missing_ok=True)
        write_with(weights, lambda path: save_file(tensors, path))
        about = _Description(
            kind=lens.name,
            format=FORMAT,
            model=lens.fingerprint,
            unembedding=lens.unembedding.digest,
            layers=lens.layers,
            n_parameters=lens.n_parameters,
            fitted=lens.fitted,
            weights=sha256_of(weights),
            versions=dict(versions()),
            positions=lens.positions,
            final_norm=lens.final_norm,
            options=lens.options,
        )
        write_atomic(folder / "lens.json", sealed(about))
    return folder


def open_lens(folder: str | Path, model: Readable) -> Lens:
    """Open the lens saved in a folder, of whatever kind it says, for the model it was fitted on.

    Raises:
        BadInput: For another model, a missing lens, or a damaged file.
    """
    folder = Path(folder)
    about = _Description.read(folder)
    if about.model != model.fingerprint:
        raise BadInput(
            f"the lens in {folder} was fitted on the model {about.model}, and the model given is "
            f"{model.fingerprint}: a lens reads only the model it was fitted on. Fit one for this model."
        )
    unembedding = model.unembedding
    if about.unembedding != unembedding.digest:
        raise BadInput(
            f"the model {model.fingerprint} has another head or final norm ({unembedding.digest[:12]}) than when "
            f"the lens in {folder} was fitted ({about.unembedding[:12]}). Is it loaded in the same dtype?"
        )
    path = unchanged(folder / _WEIGHTS, about.weights, "lens.json", _REMEDY)
    lens = KINDS[about.kind](unembedding, about.layers, about.model, about.positions, about.final_norm, **about.options)
    try:
        lens.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise BadInput(f"{path} cannot be read ({error}): {_REMEDY}") from None
    lens.fitted = about.fitted
    return lens


def verify_lens(folder: str | Path) -> list[str]:
    """One line for each file of a lens that is missing or not as it was written. BadInput where there is none."""
    return changes(Path(folder), {_WEIGHTS: _Description.read(Path(folder)).weights})


@dataclass(frozen=True)
class _Description:
    """The content of lens.json: field names are its format."""

    kind: str
    format: int
    model: str
    unembedding: str
    layers: tuple[str, ...]
    n_parameters: int
    fitted: Fitted | None
    weights: str
    versions: dict[str, str | None]
    positions: tuple[str, ...] = ()
    final_norm: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> _Description:
        path = folder / "lens.json"
        if not path.exists():
            raise BadInput(f"there is no lens in {folder}: it has no lens.json")
        about = read_sealed(path, _REMEDY)
        if str(about.get("kind")) not in KINDS or about.get("format") not in (1, FORMAT):
            raise BadInput(f"{path} does not describe a lens of format {FORMAT}: a {', a '.join(KINDS)}")
        try:
            return from_dict(cls, about | {"fitted": about.get("fitted") or None})
        except BadInput as error:
            raise BadInput(f"{path} is damaged ({error}): {_REMEDY}") from None
