"""The kinds of lens: what each does to a state, and its name in files and on the command line.

Apart from the logit lens all have an affine translator h + A h + b for each layer, and differ in what depends on the position:

    tuned               nothing (Belrose et al. 2023)
    per-position        A and b
    hybrid              A and b in some layers (critical), nothing in the others
    low-rank            a further map of rank r, added to A
    position-embedding  a vector that is added to the state before A
    position-gain       a factor for each coordinate past the norm: a diagonal change of the head
    position-bias       a number for each token, added to the logits
    position-head       a map of rank r from the state past the norm to the logits: a low-rank change of the head
    mlp                 nothing; a perceptron of some width stands beside A

Weights that a translator needs to begin with (of a low rank, a perceptron) are drawn by a fixed seed and stand beside zeros, so a
new lens is the logit lens bit for bit.
Shapes: d width, V vocabulary, T translated layers, P positions, R states, r rank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workings import seeds
from workings.errors import BadInput, suggestion
from workings.reading.lens import ALL, Columns, Lens, Readable


@final
class LogitLens(Lens):
    """The final norm and the head, applied to a state as it is (nostalgebraist 2020)."""

    name = "logit lens"

    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        pass  # there is nothing to fit

    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        return h


class TunedLens(Lens):
    """One affine translator per layer, shared by the positions, in the residual form h + A h + b (Belrose et al. 2023).

    A new one has A = b = 0 and is the logit lens, bit for bit; weight decay pulls it back to that, and not to nothing.

    Attributes:
        weight, bias: A [T, d, d] and b [T, d].
    """

    name = "tuned lens"

    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        self.weight = nn.Parameter(torch.zeros(n_layers, width, width))
        self.bias = nn.Parameter(torch.zeros(n_layers, width))

    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        h = h.to(self.bias.dtype)
        return h + torch.bmm(h, self.weight[layers].transpose(1, 2)) + self.bias[layers, None]

    @torch.no_grad()
    def start_from(self, shared: TunedLens) -> TunedLens:
        """Take over the translators of a tuned lens for the same layers; the lens itself is returned."""
        if self.translated != shared.translated:
            raise BadInput(
                f"a {self.name} for {', '.join(self.translated)} cannot start from a lens for {', '.join(shared.translated)}"
            )
        self.weight.copy_(shared.weight)
        self.bias.copy_(shared.bias)
        return self


def _by_place(h: Tensor, position: Tensor, weight: Tensor) -> Tensor:
    """Each state times the map of its position: [T, R, k] of states [T, R, d] and maps [T, P, k, d]."""
    moved = h.new_zeros(*h.shape[:2], weight.shape[2])
    for place, of_place in enumerate(weight.unbind(1)):  # one product for all states of a position
        [here] = (position == place).nonzero(as_tuple=True)
        moved = moved.index_copy(1, here, torch.bmm(h[:, here], of_place.transpose(1, 2)).to(h.dtype))
    return moved


@final
class PerPositionLens(TunedLens):
    """A tuned lens of its own for each position: h + A h + b, with A and b by layer and position.

    Attributes:
        weight, bias: A [T, P, d, d] and b [T, P, d].
    """

    name = "per-position tuned lens"
    by_position = True

    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        self.weight = nn.Parameter(torch.zeros(n_layers, n_positions, width, width))
        self.bias = nn.Parameter(torch.zeros(n_layers, n_positions, width))

    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        h = h.to(self.bias.dtype)
        return h + _by_place(h, position, self.weight[layers]) + self.bias[layers][:, position]

    def groups(self, position: Tensor) -> Tensor:
        return super().groups(position) * len(self.positions) + position

    @torch.no_grad()
    def start_from(self, shared: TunedLens) -> TunedLens:
        self.weight.copy_(shared.weight[:, None].expand_as(self.weight))
        self.bias.copy_(shared.bias[:, None].expand_as(self.bias))
        return self


@final
class HybridLens(TunedLens):
    """A translator for each position in the critical layers, and one for all positions in the others.

    Attributes:
        weight, bias: A and b of the other layers [T − C, d, d] and [T − C, d].
        critical_weight, critical_bias: Those of the C critical layers [C, P, d, d] and [C, P, d].
        own_norm: With `norm="own"`, a LayerNorm in place of the model's final norm, shared by all layers and fitted (note 002).
            The lens then is not the logit lens to begin with.
    """

    name = "hybrid tuned lens"
    by_position = True
    defaults: ClassVar[Mapping[str, Any]] = {"critical": (), "norm": "model"}

    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        critical, norm = tuple(self.options["critical"]), self.options["norm"]
        if unknown := [layer for layer in critical if layer not in self.translated]:
            raise BadInput(f"no layer {', '.join(unknown)} among the translated ones: {', '.join(self.translated)}")
        if norm not in ("model", "own"):
            raise BadInput(f"the norm of a {self.name} is 'model' or 'own', not '{norm}'")
        self.options["critical"] = critical
        self.is_critical = [layer in critical for layer in self.translated]
        n_critical = sum(self.is_critical)
        self.weight = nn.Parameter(torch.zeros(n_layers - n_critical, width, width))
        self.bias = nn.Parameter(torch.zeros(n_layers - n_critical, width))
        self.critical_weight = nn.Parameter(torch.zeros(n_critical, n_positions, width, width))
        self.critical_bias = nn.Parameter(torch.zeros(n_critical, n_positions, width))
        self.own_norm = nn.LayerNorm(width) if norm == "own" else None

    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        h = h.to(self.bias.dtype)
        here = self.is_critical[layers]
        before = sum(self.is_critical[: layers.start or 0])
        counts = {True: before, False: (layers.start or 0) - before}
        translated = []
        for state, critical in zip(h.unbind(0), here, strict=True):
            at, counts[critical] = counts[critical], counts[critical] + 1
            if critical:
                one = state[None] + _by_place(state[None], position, self.critical_weight[at][None])
                translated.append(one[0] + self.critical_bias[at][position])
            else:
                translated.append(state + state @ self.weight[at].T + self.bias[at])
        return torch.stack(translated)

    def normalise(self, h: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        return norm(h) if self.own_norm is None else self.own_norm(h.to(self.own_norm.weight.dtype))

    def groups(self, position: Tensor) -> Tensor:
        layer = super().groups(position) * len(self.positions)
        return layer + position * torch.tensor(self.is_critical, device=position.device)[:, None]

    @torch.no_grad()
    def start_from(self, shared: TunedLens) -> TunedLens:
        is_critical = torch.tensor(self.is_critical)
        self.weight.copy_(shared.weight[~is_critical])
        self.bias.copy_(shared.bias[~is_critical])
        self.critical_weight.copy_(shared.weight[is_critical][:, None].expand_as(self.critical_weight))
        self.critical_bias.copy_(shared.bias[is_critical][:, None].expand_as(self.critical_bias))
        return self


@final
class LowRankLens(TunedLens):
    """A shared translator, and for each layer and position a further map of rank r: h + (A + U V) h + b.

    Attributes:
        up, down: U [T, P, d, r] and V [T, P, r, d].
    """

    name = "low-rank tuned lens"
    by_position = True
    defaults: ClassVar[Mapping[str, Any]] = {"rank": 16}

    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        super().build(n_layers, n_positions, width, n_tokens)
        rank = _count(self, "rank", width)
        self.up = nn.Parameter(torch.zeros(n_layers, n_positions, width, rank))
        self.down = nn.Parameter(_drawn(self.name, n_layers, n_positions, rank, width))

    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        h = h.to(self.bias.dtype)
        inside = _by_place(h, position, self.down[layers])
        return super().translate(h, position, layers) + _by_place(inside, position, self.up[layers])


@final
class PositionEmbeddingLens(TunedLens):
    """A shared translator of the state with a vector of its position added: g + A g + b of g = h + e.

    Attributes:
        embedding: e [P, d], shared by the layers.
    """

    name = "position-embedding tuned lens"
    by_position = True

    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        super().build(n_layers, n_positions, width, n_tokens)
        self.embedding = nn.Parameter(torch.zeros(n_positions, width))

    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        return super().translate(h.to(self.bias.dtype) + self.embedding[position], position, layers)


@final
class PositionGainLens(TunedLens):
    """A shared translator, and past the norm a factor for each position and coordinate: a head of its own, U diag(1 + g).

    Attributes:
        gain: g [P, d].
    """

    name = "position-gain tuned lens"
    by_position = True

    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        super().build(n_layers, n_positions, width, n_tokens)
        self.gain = nn.Parameter(torch.zeros(n_positions, width))

    def scale(self, x: Tensor, position: Tensor) -> Tensor:
        return x * (1 + self.gain[position])


@final
class PositionBiasLens(TunedLens):
    """A shared translator, and for each position a number for each token, added to the logits.

    Attributes:
        token_bias: [P, V].
    """

    name = "position-bias tuned lens"
    by_position = True

    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        super().build(n_layers, n_positions, width, n_tokens)
        self.token_bias = nn.Parameter(torch.zeros(n_positions, n_tokens))

    def columns(self, x: Tensor, position: Tensor) -> Columns:
        return Columns(F.one_hot(position, len(self.positions)).to(self.token_bias.dtype), self.token_bias.T)


@final
class PositionHeadLens(TunedLens):
    """A shared translator, and for each position a change of the head of rank r: U + W D.

    A head of its own for each position is refused: it has P · V · d numbers.

    Attributes:
        tokens, directions: W [P, V, r] and D [P, r, d].
    """

    name = "position-head tuned lens"
    by_position = True
    defaults: ClassVar[Mapping[str, Any]] = {"rank": 16}

    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        super().build(n_layers, n_positions, width, n_tokens)
        if self.options["rank"] == "full":
            n = n_positions * n_tokens * width
            raise BadInput(
                f"a whole head for each of {n_positions} positions has {n:,} numbers, {16 * n / 1e9:,.1f} GB with AdamW in "
                "float32: give a rank, as in position-head(16)"
            )
        rank = _count(self, "rank", width)
        self.tokens = nn.Parameter(torch.zeros(n_positions, n_tokens, rank))
        self.directions = nn.Parameter(_drawn(self.name, n_positions, rank, width))

    def columns(self, x: Tensor, position: Tensor) -> Columns:
        n_positions, rank = self.directions.shape[:2]
        inside = torch.einsum("rd,rkd->rk", x.to(self.directions.dtype), self.directions[position])
        features = x.new_zeros(len(x), n_positions, rank, dtype=inside.dtype)
        features[torch.arange(len(x), device=x.device), position] = inside
        return Columns(features.flatten(1), self.tokens.permute(1, 0, 2).flatten(1))


@final
class MlpLens(TunedLens):
    """A translator and beside it a perceptron with one hidden layer: h + A h + b + W₂ gelu(W₁ h + b₁).

    Not affine: it can compute what a state merely allows, so it bounds what a lens could name, and is no reading.

    Attributes:
        inner, inner_bias, outer: W₁ [T, m, d], b₁ [T, m] and W₂ [T, d, m].
    """

    name = "MLP lens"
    defaults: ClassVar[Mapping[str, Any]] = {"width": 256}

    def build(self, n_layers: int, n_positions: int, width: int, n_tokens: int) -> None:
        super().build(n_layers, n_positions, width, n_tokens)
        inner = _count(self, "width")
        self.inner = nn.Parameter(_drawn(self.name, n_layers, inner, width))
        self.inner_bias = nn.Parameter(torch.zeros(n_layers, inner))
        self.outer = nn.Parameter(torch.zeros(n_layers, width, inner))

    def translate(self, h: Tensor, position: Tensor, layers: slice = ALL) -> Tensor:
        h = h.to(self.bias.dtype)
        inside = F.gelu(torch.bmm(h, self.inner[layers].transpose(1, 2)) + self.inner_bias[layers, None])
        return super().translate(h, position, layers) + torch.bmm(inside, self.outer[layers].transpose(1, 2))


def _count(lens: Lens, option: str, most: int | None = None) -> int:
    """A number of directions among the options of a lens; BadInput for what is none."""
    value = lens.options[option]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (most is not None and value > most):
        raise BadInput(
            f"the {option} of a {lens.name} is a number from 1{f' to {most}' if most else ''}, not {value!r}"
        )
    return value


def _drawn(name: str, *shape: int) -> Tensor:
    """Weights to begin with, whose rows have length about 1; the same ones every time."""
    device = torch.get_default_device()
    with torch.device("cpu"):
        return (torch.randn(shape, generator=seeds.torch(name, 0)) / shape[-1] ** 0.5).to(device)


KINDS: Mapping[str, type[Lens]] = {
    kind.name: kind
    for kind in (
        LogitLens,
        TunedLens,
        PerPositionLens,
        HybridLens,
        LowRankLens,
        PositionEmbeddingLens,
        PositionGainLens,
        PositionBiasLens,
        PositionHeadLens,
        MlpLens,
    )
}
_SHORT = {re.sub(r" ?(tuned )?lens$", "", name).lower() or "tuned": kind for name, kind in KINDS.items()}
_SPEC = re.compile(r"([a-z-]+)(?:\(([^)]*)\))?")


def lens_of(
    spec: str, model: Readable, layers: Sequence[str] = (), *, positions: Sequence[str] = (), final_norm: bool = False
) -> Lens:
    """A new lens by the short name of its kind, with its option in parentheses.

    Args:
        spec: `logit`, `tuned`, `per-position`, `hybrid(block6,block9)`, `low-rank(16)`, `position-embedding`, `position-gain`,
            `position-bias`, `position-head(16)` or `mlp(256)`.
        model, layers, positions, final_norm: As in `Lens.of`.

    Raises:
        BadInput: There is no such kind, or its option is none.
    """
    found = _SPEC.fullmatch(spec.replace(" ", ""))
    if not found or found[1] not in _SHORT:
        hint = suggestion(found[1] if found else spec, _SHORT) or f"; there are {', '.join(_SHORT)}"
        raise BadInput(f"no kind of lens '{spec}'{hint}")
    kind = _SHORT[found[1]]
    options = _read_option(kind, found[2]) if found[2] is not None else {}
    return kind.of(model, layers, positions=positions, final_norm=final_norm, **options)


def _read_option(kind: type[Lens], text: str) -> dict[str, Any]:
    option = next(iter(kind.defaults), None)
    if option is None:
        raise BadInput(f"a {kind.name} has no option, and '{text}' was given")
    if isinstance(kind.defaults[option], tuple):
        return {option: tuple(text.split(","))}
    return {option: int(text) if text.isdigit() else text}
