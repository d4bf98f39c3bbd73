"""A hidden state → logits over the vocabulary: what the state would say, read through the model's own head.

A `Lens` is abstract; `LogitLens` and `TunedLens` are final. A state at `final_norm` is past the final norm already and
is what the model itself reads, so every lens gives the model's own logits there.
Shapes: d width, V vocabulary, T translated layers, R states.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workings.config import from_dict
from workings.errors import BadInput
from workings.files import sha256_of, to_json, write_atomic, write_with
from workings.models.anatomy import Unembedding
from workings.provenance import versions
from workings.reading.recipe import FitConfig, Precision
from workings.reading.store import FINAL_NORM, HiddenStates, disk_errors, read_description

FORMAT = 1


@dataclass(frozen=True)
class Fitted:
    """How a lens was fitted.

    Attributes:
        recipe: The recipe, with the precision that "auto" stood for.
        rule: Rule of the probe targets.
        targets, states: Digests of the targets and of the hidden states.
        best_epoch: The epoch whose weights it has; 0 is the start.
        validation: Loss in nats per target, in float32, over all layers.
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
    """Reads the states of one model, named by its fingerprint, at the layers it knows."""

    name: str

    def __init__(self, unembedding: Unembedding, layers: Sequence[str], fingerprint: str) -> None:
        super().__init__()
        self.unembedding, self.layers, self.fingerprint = unembedding, tuple(layers), fingerprint

    @classmethod
    def of(cls, model: Readable, layers: Sequence[str] = ()) -> Self:
        """A new lens for some layers of a model, or of another lens's model; for all, by default."""
        return cls(model.unembedding, layers or model.layers, model.fingerprint)

    @abstractmethod
    def translate(self, h: Tensor, layer: str, position: str | None = None) -> Tensor:
        """A state [..., d] of a layer below the final norm → the state [..., d] that the final norm is to see."""

    def read(self, h: Tensor, layer: str, position: str | None = None) -> Tensor:
        """Logits [..., V] of states [..., d], in the dtype of the head.

        Raises:
            BadInput: For a layer that the lens does not know.
        """
        if layer not in self.layers:
            raise BadInput(f"the {self.name} has no layer '{layer}'; it has {', '.join(self.layers)}")
        head = self.unembedding.weight
        h = h.to(head.device)
        if layer == FINAL_NORM:
            return self.unembedding(h.to(head.dtype), normed=True)
        return self.unembedding(self.translate(h, layer, position).to(head.dtype), normed=False)

    def refuse_others(self, hidden: HiddenStates) -> None:
        """BadInput for states of another model than the lens is for."""
        if self.fingerprint != hidden.fingerprint:
            raise BadInput(
                f"the {self.name} is for the model {self.fingerprint}, and the hidden states are of {hidden.fingerprint}: "
                "a lens is fitted on, and reads, the thoughts of its own model"
            )


@final
class LogitLens(Lens):
    """The final norm and the head, applied to a state as it is (nostalgebraist 2020)."""

    name = "logit lens"

    def translate(self, h: Tensor, layer: str, position: str | None = None) -> Tensor:
        return h


@final
class TunedLens(Lens):
    """One affine translator per layer, shared by the positions, in the residual form h + A h + b (Belrose et al. 2023).

    A new one has A = b = 0 and is the logit lens, bit for bit; weight decay pulls it back to that, and not to nothing. The
    model's norm and head are frozen and not part of it.

    Attributes:
        weight, bias: A [T, d, d] and b [T, d], float32 whatever the model's dtype.
        fitted: Recipe and data of the fit; None before a fit.
    """

    name = "tuned lens"

    def __init__(self, unembedding: Unembedding, layers: Sequence[str], fingerprint: str) -> None:
        super().__init__(unembedding, layers, fingerprint)
        n, d = len(self.translated), unembedding.weight.shape[1]
        device = unembedding.weight.device
        self.weight = nn.Parameter(torch.zeros(n, d, d, device=device))
        self.bias = nn.Parameter(torch.zeros(n, d, device=device))
        self.fitted: Fitted | None = None

    @property
    def translated(self) -> tuple[str, ...]:
        """The layers that have a translator: all but `final_norm`."""
        return tuple(layer for layer in self.layers if layer != FINAL_NORM)

    @property
    def n_parameters(self) -> int:
        """Trained numbers."""
        return self.weight.numel() + self.bias.numel()

    def translate(self, h: Tensor, layer: str, position: str | None = None) -> Tensor:
        i = self.translated.index(layer)
        h = h.to(self.weight.dtype)
        return h + nn.functional.linear(h, self.weight[i], self.bias[i])

    def save(self, folder: str | Path) -> Path:
        """Write `lens.safetensors`, then `lens.json`: without the second there is no lens in the folder."""
        folder = Path(folder)
        weights = folder / "lens.safetensors"
        tensors = {"weight": self.weight.detach().cpu(), "bias": self.bias.detach().cpu()}
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "lens.json").unlink(missing_ok=True)
            write_with(weights, lambda path: save_file(tensors, path))
            about = _Description(
                kind="tuned lens",
                format=FORMAT,
                model=self.fingerprint,
                unembedding=self.unembedding.digest,
                layers=self.layers,
                n_parameters=self.n_parameters,
                fitted=self.fitted,
                weights=sha256_of(weights),
                versions=dict(versions()),
            )
            write_atomic(folder / "lens.json", to_json(about))
        return folder

    @classmethod
    def load(cls, folder: str | Path, model: Readable) -> Self:
        """Open the lens saved in a folder, for the model it was fitted on.

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
        path = folder / "lens.safetensors"
        if not path.is_file() or sha256_of(path) != about.weights:
            raise BadInput(f"{path} is missing or not the file that lens.json describes; fit the lens again")
        lens = cls(unembedding, about.layers, about.model)
        try:
            lens.load_state_dict(load_file(path), strict=False)  # the model's own head is not in the file
        except SafetensorError as error:
            raise BadInput(f"{path} cannot be read: {error}") from None
        lens.fitted = about.fitted
        return lens


@dataclass(frozen=True)
class _Description:
    """The content of lens.json: field names are its format."""

    kind: Literal["tuned lens"]
    format: int
    model: str
    unembedding: str
    layers: tuple[str, ...]
    n_parameters: int
    fitted: Fitted | None
    weights: str
    versions: dict[str, str | None]

    @classmethod
    def read(cls, folder: Path) -> _Description:
        path = folder / "lens.json"
        if not path.exists():
            raise BadInput(f"there is no lens in {folder}: it has no lens.json")
        about = read_description(path)
        if about.get("kind") != TunedLens.name or about.get("format") != FORMAT:
            raise BadInput(f"{path} does not describe a {TunedLens.name} of format {FORMAT}")
        try:
            return from_dict(cls, about | {"fitted": about.get("fitted") or None})
        except BadInput as error:
            raise BadInput(f"{path} is damaged ({error}): fit the lens again") from None


# ---- the head, for a fit -----------------------------------------------------------------------------------------

# Scores held at once: on a CPU as many as the last-level cache holds, on a GPU as many as keep it busy.
_CHUNK = {"cpu": 1 << 23, "cuda": 1 << 28}
_FEWEST_ROWS = 256  # with fewer rows a chunk the head itself is read from memory too often


class FrozenHead(nn.Module):
    """Cross-entropy under a model's final norm (float32) and head, and its gradient, without ever holding all logits.

    Why not torch's `F.linear_cross_entropy`: its chunked path reaches 66 to 88 GFLOP/s in bfloat16 on one AVX512-BF16 core,
    where this reaches 370 to 420 of 470 possible (d = 256, V = 8,192 and d = 2,048, V = 32,000). The head is frozen, so the
    gradient of the states is all there is to compute, and it can be computed while the scores are still in the cache.
    """

    def __init__(self, unembedding: Unembedding, precision: Precision) -> None:
        super().__init__()
        self.dtype = torch.bfloat16 if resolved(precision, unembedding.weight.device) == "bf16" else torch.float32
        self.norm = copy.deepcopy(unembedding.norm).float().requires_grad_(False)
        self.register_buffer("weight", unembedding.weight.detach().to(self.dtype))
        self.weight: Tensor
        vocabulary = len(self.weight)
        self.rows = max(_FEWEST_ROWS, _CHUNK.get(self.weight.device.type, 1 << 26) // vocabulary)

    def forward(self, state: Tensor, targets: Tensor) -> Tensor:
        """Σ −log p(target) in nats, float32, of states [R, d] before the final norm and targets Long [R]."""
        return _CrossEntropy.apply(self.norm(state).to(self.dtype), self.weight, targets, self.rows)


def resolved(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """The format that "auto" stands for on a device: bfloat16 where it multiplies in hardware."""
    if precision != "auto":
        return precision
    if device.type != "cpu":
        return "bf16" if device.type == "cuda" else "fp32"
    try:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    except AttributeError:  # these are private to torch: without them, the safe answer
        native = False
    return "bf16" if native else "fp32"


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        wants_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(x) if wants_gradient else None
        scores = x.new_empty(min(rows, len(x)), len(weight))
        total = torch.zeros((), device=x.device)
        for start in range(0, len(x), rows):
            some, target = x[start : start + rows], targets[start : start + rows, None]
            s = torch.mm(some, weight.T, out=scores[: len(some)])
            best, right = s.amax(1, keepdim=True).float(), s.gather(1, target).float()
            p = torch.softmax(s, 1, out=s)
            # log Σ exp s = best − log p(best): p(best) is never too small for bfloat16, p(target) may be.
            total += (best - p.amax(1, keepdim=True).float().log() - right).sum()
            if gradient is not None:
                torch.mm(p, weight, out=gradient[start : start + rows])
        if gradient is not None:
            ctx.save_for_backward(gradient.sub_(weight[targets]))
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient.float() * grad_outputs[0]).to(gradient.dtype), None, None, None
