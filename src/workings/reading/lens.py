"""A hidden state → logits over the vocabulary: what the state would say, read through the model's own head.

A `Lens` is abstract; its kinds are final, and differ in what they do to a state before the model's final norm and head decode it
(`translate`). A state at `final_norm` is past the final norm already and is what the model itself reads: every lens gives the
model's own logits there, unless it has a translator of its own for that state. The norm is never applied twice.
Shapes: d width, V vocabulary, T translated layers, P positions, R states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, Self, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

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
from workings.models.anatomy import Unembedding
from workings.provenance import versions
from workings.reading.manifest import disk_errors
from workings.reading.recipe import FitConfig
from workings.reading.store import FINAL_NORM, HiddenStates

FORMAT = 2  # 1 had tuned lenses only, shared by the positions and without a translator at final_norm
ALL = slice(None)
_WEIGHTS = "lens.safetensors"
_REMEDY = "copy the lens again, or fit it again"


@dataclass(frozen=True)
class Fitted:
    """How a lens was fitted.

    Attributes:
        recipe: The recipe, with the precision that "auto" stood for.
        rule: Rule of the probe targets.
        targets, states: Digests of the targets and of the hidden states.
        best_epoch: The epoch whose weights it has; 0 is the start.
        validation: Loss in nats per asked token, in float32, over all translated layers.
        n_epochs: Epochs until the fit stopped.
    """

    recipe: FitConfig
    rule: str
    targets: str
    states: str
    best_epoch: int
    validation: float
    n_epochs: int


class Readable(Protocol):
    """The parts of a model that a lens needs; a lens has them too."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def unembedding(self) -> Unembedding: ...


class Lens(nn.Module, ABC):
    """Reads the states of one model, named by its fingerprint, at the layers it knows.

    A kind has a `name`; `build` makes its parameters, float32 whatever the model's dtype, and `translate` applies them. They are
    all that is fitted and saved: the model's norm and head are frozen, shared by every copy of a lens, and no part of it. With
    its first parameters a lens translates nothing, and so is the logit lens.

    Attributes:
        layers: The layers that it reads, `final_norm` last.
        positions: The positions that it tells apart; empty for a kind that reads all of them alike (not `by_position`).
        final_norm: Whether the state at `final_norm` is translated too.
        fitted: Recipe and data of the fit; None before a fit.
    """

    name: ClassVar[str]
    by_position: ClassVar[bool] = False

    def __init__(
        self,
        unembedding: Unembedding,
        layers: Sequence[str],
        fingerprint: str,
        positions: Sequence[str] = (),
        final_norm: bool = False,
    ) -> None:
        super().__init__()
        self._frozen = _Frozen(unembedding)
        self.layers = tuple(sorted(layers, key=lambda layer: layer == FINAL_NORM))
        self.fingerprint = fingerprint
        self.positions = tuple(positions) if self.by_position else ()
        self.final_norm = final_norm and FINAL_NORM in self.layers
        self.fitted: Fitted | None = None
        with torch.device(unembedding.weight.device):
            self.build(len(self.translated), len(self.positions), unembedding.weight.shape[1])

    @classmethod
    def of(
        cls,
        model: Readable,
        layers: Sequence[str] = (),
        *,
        positions: Sequence[str] = (),
        final_norm: bool = False,
    ) -> Self:
        """A new lens for some layers of a model, or of another lens's model; for all, by default."""
        return cls(model.unembedding, layers or model.layers, model.fingerprint, positions, final_norm)

    @property
    def unembedding(self) -> Unembedding:
        """The model's own final norm and head."""
        return self._frozen.unembedding

    @property
    def translated(self) -> tuple[str, ...]:
        """The T layers whose states are translated: all but `final_norm`, or all."""
        return tuple(layer for layer in self.layers if self.final_norm or layer != FINAL_NORM)

    @property
    def n_parameters(self) -> int:
        """Trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    @abstractmethod
    def build(self, n_layers: int, n_positions: int, width: int) -> None:
        """Make the parameters for T translated layers, P positions and width d, such that nothing is translated yet."""

    @abstractmethod
    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        """States as the model's norm and head are to see them. Where nothing is translated, a state must be left bit for bit.

        A state below the final norm is normed afterwards, a state at `final_norm` is not.

        Args:
            h: States [T, R, d] of the translated layers, in their order.
            position: The place of each state's position in `positions`, Long [R]; 0 for a lens that has none.
            layers: Which of the translated layers `h` has, to read fewer than all of them.

        Returns:
            States [T, R, d].
        """

    def read(self, h: Tensor, layer: str, position: str | None = None) -> Tensor:
        """Logits [..., V] of states [..., d] of one layer and position, in the dtype of the head.

        Raises:
            BadInput: For a layer that the lens does not know, or a position that it had to know.
        """
        if layer not in self.layers:
            raise BadInput(f"the {self.name} has no layer '{layer}'; it has {', '.join(self.layers)}")
        head = self.unembedding.weight
        h = h.to(head.device)
        if layer in self.translated:
            at = self.translated.index(layer)
            states = h.reshape(1, -1, h.shape[-1])
            place = torch.full((states.shape[1],), self.place_of(position), device=h.device)
            h = self.translate(states, place, slice(at, at + 1)).reshape(h.shape)
        return self.unembedding(h.to(head.dtype), normed=layer == FINAL_NORM)

    def place_of(self, position: str | None) -> int:
        """The place of a position in `positions`; 0 for a lens that reads all positions alike."""
        if not self.positions:
            return 0
        if position not in self.positions:
            raise BadInput(f"the {self.name} has no position '{position}'; it has {', '.join(self.positions)}")
        return self.positions.index(position)

    def refuse_others(self, hidden: HiddenStates) -> None:
        """BadInput for states of another model than the lens is for."""
        if self.fingerprint != hidden.fingerprint:
            raise BadInput(
                f"the {self.name} is for the model {self.fingerprint}, and the hidden states are of {hidden.fingerprint}: "
                "a lens is fitted on, and reads, the thoughts of its own model"
            )

    def save(self, folder: str | Path) -> Path:
        """Write `lens.safetensors`, then `lens.json`: without the second there is no lens in the folder."""
        folder = Path(folder)
        weights = folder / _WEIGHTS
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            drop_half_written(folder)
            (folder / "lens.json").unlink(missing_ok=True)
            write_with(weights, lambda path: save_file(tensors, path))
            about = _Description(
                kind=self.name,
                format=FORMAT,
                model=self.fingerprint,
                unembedding=self.unembedding.digest,
                layers=self.layers,
                n_parameters=self.n_parameters,
                fitted=self.fitted,
                weights=sha256_of(weights),
                versions=dict(versions()),
                positions=self.positions,
                final_norm=self.final_norm,
            )
            write_atomic(folder / "lens.json", sealed(about))
        return folder

    @classmethod
    def load(cls, folder: str | Path, model: Readable) -> Self:
        """Open the lens saved in a folder, of whatever kind it says, for the model it was fitted on.

        Raises:
            BadInput: For another model, a missing lens, a damaged file, or another kind than the class it is called on.
        """
        folder = Path(folder)
        about = _Description.read(folder)
        kind = KINDS[about.kind]
        if not issubclass(kind, cls):
            raise BadInput(f"{folder} holds a {kind.name}, not a {cls.name}; open it with Lens.load")
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
        lens = kind(unembedding, about.layers, about.model, about.positions, about.final_norm)
        try:
            lens.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            raise BadInput(f"{path} cannot be read ({error}): {_REMEDY}") from None
        lens.fitted = about.fitted
        return lens


class _Frozen:
    """Holds a model's norm and head for a lens: not a module, so never trained, saved or moved with it; copies share it."""

    def __init__(self, unembedding: Unembedding) -> None:
        self.unembedding = unembedding

    def __deepcopy__(self, memo: dict) -> _Frozen:
        return self


# ---- the kinds ---------------------------------------------------------------------------------------------------


@final
class LogitLens(Lens):
    """The final norm and the head, applied to a state as it is (nostalgebraist 2020)."""

    name = "logit lens"

    def build(self, n_layers: int, n_positions: int, width: int) -> None:
        pass  # there is nothing to fit

    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        return h


@final
class TunedLens(Lens):
    """One affine translator per layer, shared by the positions, in the residual form h + A h + b (Belrose et al. 2023).

    A new one has A = b = 0 and is the logit lens, bit for bit; weight decay pulls it back to that, and not to nothing.

    Attributes:
        weight, bias: A [T, d, d] and b [T, d].
    """

    name = "tuned lens"

    def build(self, n_layers: int, n_positions: int, width: int) -> None:
        self.weight = nn.Parameter(torch.zeros(n_layers, width, width))
        self.bias = nn.Parameter(torch.zeros(n_layers, width))

    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        h = h.to(self.bias.dtype)
        return h + torch.bmm(h, self.weight[layers].transpose(1, 2)) + self.bias[layers, None]


@final
class PerPositionLens(Lens):
    """A tuned lens of its own for each position: h + A h + b, with A and b by layer and position.

    Attributes:
        weight, bias: A [T, P, d, d] and b [T, P, d].
    """

    name = "per-position tuned lens"
    by_position = True

    def build(self, n_layers: int, n_positions: int, width: int) -> None:
        if not n_positions:
            raise BadInput(f"a {self.name} needs the names of the positions that it tells apart")
        self.weight = nn.Parameter(torch.zeros(n_layers, n_positions, width, width))
        self.bias = nn.Parameter(torch.zeros(n_layers, n_positions, width))

    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        h = h.to(self.bias.dtype)
        moved = torch.zeros_like(h)
        for place, weight in enumerate(self.weight[layers].unbind(1)):  # one product for all states of a position
            [here] = (position == place).nonzero(as_tuple=True)
            moved = moved.index_copy(1, here, torch.bmm(h[:, here], weight.transpose(1, 2)).to(h.dtype))
        return h + moved + self.bias[layers][:, position]


def verify_lens(folder: str | Path) -> list[str]:
    """One line for each file of a lens that is missing or not as it was written. BadInput where there is none."""
    return changes(Path(folder), {_WEIGHTS: _Description.read(Path(folder)).weights})


KINDS: dict[str, type[Lens]] = {kind.name: kind for kind in (LogitLens, TunedLens, PerPositionLens)}


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
