"""Features and classes → log-probabilities of a small perceptron: the reader in which numbers can meet.

Shapes: n problems, f features, h hidden units, C candidate values, M members.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workings import seeds
from workings.judging.readers import Floats, Ints, normalised

_RATE = 0.02
_BETWEEN_LOOKS = 4  # steps from one look at the validation loss to the next
_PATIENCE = 4  # looks in a row that bring nothing before a member counts as done


def fit_perceptron(
    x: NDArray[np.float32],
    y: Ints,
    n_classes: int,
    train: Ints,
    val: Ints,
    seed: int,
    n_hidden: int = 96,
    n_members: int = 2,
    decay: float = 3.0,
    most_steps: int = 240,
) -> Floats:
    """Log-probabilities [n, C] of perceptrons with one hidden layer, averaged over members that start differently.

    Full-batch AdamW; the step is kept at which the average does best on validation. With a thousand problems, strong decay
    is what lets a member generalise (a first step of the bundled problems: 80 % without, 85 to 90 % with it).

    Args:
        x: Features [n, f], of about unit size.
        y: The class of each problem [n]; −1, which is nowhere fitted or scored, where it is not among the C.
        n_classes: C.
        train, val: Problems to fit on, and to stop on.
        seed: Random seed of the members' weights.
        n_hidden: h.
        n_members: M.
        decay: Decoupled weight decay.
        most_steps: Steps after which the fit ends at the latest.
    """
    train, val = train[y[train] >= 0], val[y[val] >= 0]
    features, labels = torch.from_numpy(x[train]), torch.from_numpy(y[train])
    weights = _start(features, n_hidden, n_classes, n_members, seed)
    optimiser = torch.optim.AdamW(weights, lr=_RATE, weight_decay=decay)
    of_val, val_labels = torch.from_numpy(x[val]), torch.from_numpy(y[val])
    least, kept, n_waited = float("inf"), [w.detach().clone() for w in weights], 0
    for step in range(1, most_steps + 1):
        scores = _scores(features, weights)
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.repeat(n_members)) * n_members
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % _BETWEEN_LOOKS:
            continue
        with torch.no_grad():
            now = float(torch.nn.functional.nll_loss(_log_p(of_val, weights), val_labels)) if len(val) else -step
        n_waited += 1
        if now < least:
            least, kept, n_waited = now, [w.detach().clone() for w in weights], 0
        if n_waited == _PATIENCE:
            break
    with torch.no_grad():
        return normalised(_log_p(torch.from_numpy(x), kept).numpy())


def _start(features: Tensor, n_hidden: int, n_classes: int, n_members: int, seed: int) -> list[Tensor]:
    """Weights and biases of both layers; hidden units start with unit variance whatever the features' scale."""
    generator = seeds.torch("perceptron", seed)
    size = features.square().sum(1).mean().sqrt().clamp_min(1e-6)
    first = torch.randn(n_members, features.shape[1], n_hidden, generator=generator) / size
    second = torch.randn(n_members, n_hidden, n_classes, generator=generator) / n_hidden**0.5
    weights = [first, torch.zeros(n_members, 1, n_hidden), second, torch.zeros(n_members, 1, n_classes)]
    return [w.requires_grad_() for w in weights]


def _scores(x: Tensor, weights: list[Tensor]) -> Tensor:
    """Scores of each member [M, n, C]."""
    first, bias, second, of_class = weights
    return torch.relu(x @ first + bias) @ second + of_class


def _log_p(x: Tensor, weights: list[Tensor]) -> Tensor:
    """Log of the members' mean probability [n, C]."""
    return torch.log_softmax(_scores(x, weights), -1).logsumexp(0) - float(np.log(len(weights[0])))
