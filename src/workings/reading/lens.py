"""A hidden state → logits over the vocabulary: what the state would say, read through the model's own head.

A `Lens` is abstract; its kinds (`lens_kinds`) differ in what they do to a state before the model's final norm and head decode it
(`translate`), between the two (`scale`), and in what they add to the head (`columns`). A state at `final_norm` is past the final
norm already and is what the model itself reads: every lens gives the model's own logits there, unless it has a translator of its
own for that state. The norm is never applied twice.
Shapes: d width, V vocabulary, T translated layers, P positions, R states, e columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workings.config import several
from workings.errors import BadInput, suggestion
from workings.models.anatomy import Unembedding, soft_capped
from workings.reading.recipe import FitConfig
from workings.reading.store import FINAL_NORM, HiddenStates

ALL = slice(None)


class Columns(NamedTuple):
    """What a lens adds to the logits: `features` [R, e] times the transposed `weight` [V, e]."""

    features: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Fitted:
    """How a lens was fitted.

    Attributes:
        recipe: The recipe, with the precision that "auto" stood for.
        rule: Rule of the probe targets.
        targets, states: Digests of the targets and of the hidden states.
        best_epoch: The epoch whose weights it has; 0 is the start.
        validation: Mean of the objective, in nats, in float32, over all translated layers.
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
        options: What its kind can be told, such as a rank; `defaults` of the kind where nothing was said.
        fitted: Recipe and data of the fit; None before a fit.
    """

    name: ClassVar[str]
    by_position: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        unembedding: Unembedding,
        layers: str | Sequence[str],
        fingerprint: str,
        positions: str | Sequence[str] = (),
        final_norm: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if unknown := next((name for name in options if name not in self.defaults), None):
            hint = suggestion(unknown, self.defaults) or f"; it has {', '.join(self.defaults) or 'none'}"
            raise BadInput(f"a {self.name} has no option '{unknown}'{hint}")
        self._frozen = _Frozen(unembedding)
        self.layers = tuple(sorted(several(layers), key=lambda layer: layer == FINAL_NORM))
        self.fingerprint = fingerprint
        self.positions = tuple(several(positions)) if self.by_position else ()
        if self.by_position and not self.positions:
            raise BadInput(f"a {self.name} needs the names of the positions that it tells apart")
        self.final_norm = final_norm and FINAL_NORM in self.layers
        self.options = {**self.defaults, **options}
        self.fitted: Fitted | None = None
        with torch.device(unembedding.weight.device):
            self.build(len(self.translated), len(self.positions), *unembedding.weight.shape[::-1])

    @classmethod
    def of(
        cls,
        model: Readable,
        layers: str | Sequence[str] = (),
        *,
        positions: str | Sequence[str] = (),
        final_norm: bool = False,
        **options: Any,
    ) -> Self:
        """A new lens for some layers of a model, or of another lens's model; for all, by default."""
        return cls(model.unembedding, layers or model.layers, model.fingerprint, positions, final_norm, **options)

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
    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        """Make the parameters for T translated layers, P positions, width d and V tokens, such that nothing is translated yet."""

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

    def normalise(self, h: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """States [T, R, d] below the final norm, normed: by the model's norm, unless a kind has its own."""
        return norm(h)

    def scale(self, x: Tensor, position: Tensor) -> Tensor:
        """States [T, R, d] past the norm as the head is to see them; by default as they are."""
        return x

    def columns(self, x: Tensor, position: Tensor) -> Columns | None:
        """What is added to the logits of states [R, d] past the norm at positions Long [R]; by default nothing."""
        return None

    def groups(self, position: Tensor) -> Tensor:
        """A number for each translated layer and state, Long [T, R]: those with one number have one translator."""
        return torch.arange(len(self.translated), device=position.device)[:, None].expand(-1, len(position))

    def read(self, h: Tensor, layer: str, position: str | None = None) -> Tensor:
        """Logits [..., V] of states [..., d] of one layer and position, in the dtype of the head.

        Raises:
            BadInput: For a layer that the lens does not know, or a position that it had to know.
        """
        if layer not in self.layers:
            raise BadInput(f"the {self.name} has no layer '{layer}'; it has {', '.join(self.layers)}")
        head = self.unembedding
        x = h.to(head.weight.device).reshape(1, -1, h.shape[-1])
        place = torch.full((x.shape[1],), self.place_of(position), device=x.device)
        is_translated = layer in self.translated
        if is_translated:
            at = self.translated.index(layer)
            x = self.translate(x, place, slice(at, at + 1))
        x = x.to(head.weight.dtype)
        if layer != FINAL_NORM:
            x = self.normalise(x, head.norm) if is_translated else head.norm(x)
        [x] = (self.scale(x, place) if is_translated else x).to(head.weight.dtype)
        logits = F.linear(x, head.weight)
        if is_translated and (added := self.columns(x, place)) is not None:
            logits = logits + (added.features @ added.weight.T).to(logits.dtype)
        return soft_capped(logits, head.cap).reshape(*h.shape[:-1], -1)

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


class _Frozen:
    """Holds a model's norm and head for a lens: not a module, so never trained, saved or moved with it; copies share it."""

    def __init__(self, unembedding: Unembedding) -> None:
        self.unembedding = unembedding

    def __deepcopy__(self, memo: dict) -> _Frozen:
        return self
