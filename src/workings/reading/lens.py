"""A hidden state → logits over the vocabulary: what the state would say, read through the model's own head.

A `Lens` is abstract; `LogitLens` and `TunedLens` are final. A state at `final_norm` is past the final norm already and
is what the model itself reads, so every lens gives the model's own logits there.
Shapes: d width, V vocabulary, T translated layers.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workings.errors import BadInput
from workings.files import sha256_of, to_json, write_atomic, write_with
from workings.models.anatomy import Unembedding
from workings.reading.store import FINAL_NORM
from workings.reading.writer import explaining
from workings.run import versions

FORMAT = 1


class ReadableModel(Protocol):
    """What a lens needs of a model."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def unembedding(self) -> Unembedding: ...


class Lens(nn.Module, ABC):
    """Reads the states of one model, named by its fingerprint, at the layers it knows."""

    name: str

    def __init__(self, unembedding: Unembedding, layers: Sequence[str], fingerprint: str) -> None:
        super().__init__()
        self.unembedding, self.layers, self.fingerprint = unembedding, tuple(layers), fingerprint

    @abstractmethod
    def translate(self, h: Tensor, layer: str, position: str | None = None) -> Tensor:
        """A state [..., d] of a layer below the final norm → the state [..., d] that the final norm is to see."""

    def read(self, h: Tensor, layer: str, position: str | None = None) -> Tensor:
        """Logits [..., V] of a state [..., d], in the dtype of the head. BadInput for a layer it does not know."""
        if layer not in self.layers:
            raise BadInput(f"the {self.name} has no layer '{layer}'; it has {', '.join(self.layers)}")
        head = self.unembedding.weight
        h = h.to(head.device)
        if layer == FINAL_NORM:
            return self.unembedding(h.to(head.dtype), normed=True)
        return self.unembedding(self.translate(h, layer, position).to(head.dtype), normed=False)


@final
class LogitLens(Lens):
    """The final norm and the head, applied to a state as it is."""

    name = "logit lens"

    @classmethod
    def of(cls, model: ReadableModel) -> LogitLens:
        return cls(model.unembedding, model.layers, model.fingerprint)

    def translate(self, h: Tensor, layer: str, position: str | None = None) -> Tensor:
        return h


@final
class TunedLens(Lens):
    """One affine translator a layer, shared by the positions, in the residual form h + A h + b.

    So weight decay pulls it to the logit lens, which it is while A and b are zero, and not to nothing.
    `fitted` says by what recipe and on which data it was fitted; the model's norm and head are not part of it.
    """

    name = "tuned lens"

    def __init__(self, unembedding: Unembedding, layers: Sequence[str], fingerprint: str) -> None:
        super().__init__(unembedding, layers, fingerprint)
        n, d = len(self.translated), unembedding.weight.shape[1]
        device = unembedding.weight.device
        self.weight = nn.Parameter(torch.zeros(n, d, d, device=device))  # float32, whatever the model's dtype
        self.bias = nn.Parameter(torch.zeros(n, d, device=device))
        self.fitted: dict[str, Any] = {}

    @classmethod
    def start(cls, unembedding: Unembedding, layers: Sequence[str], fingerprint: str) -> TunedLens:
        """All translators zero: the logit lens, bit for bit."""
        return cls(unembedding, layers, fingerprint)

    @classmethod
    def of(cls, model: ReadableModel) -> TunedLens:
        """A lens for all layers of a model, all translators zero."""
        return cls.start(model.unembedding, model.layers, model.fingerprint)

    @property
    def translated(self) -> tuple[str, ...]:
        """The layers that have a translator: all but `final_norm`."""
        return tuple(layer for layer in self.layers if layer != FINAL_NORM)

    @property
    def n_parameters(self) -> int:
        """Trained numbers; the model's own norm and head are frozen and not counted."""
        return self.weight.numel() + self.bias.numel()

    def translate(self, h: Tensor, layer: str, position: str | None = None) -> Tensor:
        i = self.translated.index(layer)
        h = h.to(self.weight.dtype)
        return h + nn.functional.linear(h, self.weight[i], self.bias[i])

    def save(self, folder: str | Path) -> Path:
        """`lens.safetensors` and `lens.json`, the second written last: without it there is no lens in the folder."""
        folder = Path(folder)
        tensors = {"weight": self.weight.detach().cpu(), "bias": self.bias.detach().cpu()}
        with explaining(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "lens.json").unlink(missing_ok=True)
            write_with(folder / "lens.safetensors", lambda path: save_file(tensors, path))
            write_atomic(folder / "lens.json", to_json(self._described(folder / "lens.safetensors")))
        return folder

    @classmethod
    def load(cls, folder: str | Path, model: ReadableModel) -> Self:
        """The lens saved in a folder, for the model it was fitted on. BadInput for another model, or a damaged file."""
        folder = Path(folder)
        about = _description(folder)
        if about["model"] != model.fingerprint:
            raise BadInput(
                f"the lens in {folder} was fitted on the model {about['model']}, and the model given is "
                f"{model.fingerprint}: a lens reads only the model it was fitted on. Fit one for this model."
            )
        unembedding = model.unembedding
        if about["unembedding"] != unembedding.digest:
            raise BadInput(
                f"the model {model.fingerprint} has another head or final norm ({unembedding.digest[:12]}) than when "
                f"the lens in {folder} was fitted ({about['unembedding'][:12]}). Is it loaded in the same dtype?"
            )
        lens = cls(unembedding, about["layers"], about["model"])
        lens.load_state_dict(_tensors(folder, about), strict=False)
        lens.fitted = about["fitted"]
        return lens

    def _described(self, weights: Path) -> dict[str, Any]:
        return {
            "kind": self.name,
            "format": FORMAT,
            "model": self.fingerprint,
            "unembedding": self.unembedding.digest,
            "layers": self.layers,
            "n_parameters": self.n_parameters,
            "fitted": self.fitted,
            "weights": sha256_of(weights),
            "versions": versions(),
        }


def _description(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / "lens.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"there is no lens in {folder}: it has no lens.json") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder}/lens.json cannot be read: {error}") from None
    if not isinstance(about, dict) or about.get("kind") != TunedLens.name or about.get("format") != FORMAT:
        raise BadInput(f"{folder}/lens.json does not describe a {TunedLens.name} of format {FORMAT}")
    return about


def _tensors(folder: Path, about: dict[str, Any]) -> dict[str, Tensor]:
    path = folder / "lens.safetensors"
    if not path.is_file() or sha256_of(path) != about["weights"]:
        raise BadInput(f"{path} is missing or not the file that lens.json describes; fit the lens again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
